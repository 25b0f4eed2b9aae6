"""The formats of an export, one module each: `find` its annotations, `read` them."""
