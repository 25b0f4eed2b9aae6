"""Files on this machine and in buckets: copying, fingerprints, credentials."""
