"""What differs between runs: configuration, data, code, figures and answers."""
