"""Generators of the pages and pictures in docs/ that are made from the code, see `documentation.__main__`."""
