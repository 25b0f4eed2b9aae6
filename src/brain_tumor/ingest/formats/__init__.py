"""The formats that an export can have, one module each; see `registry` for what it has."""
