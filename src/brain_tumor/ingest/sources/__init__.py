"""Where images come from, one module a source; see `fetch` for all of them."""
