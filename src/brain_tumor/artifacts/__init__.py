"""The artifacts that steps exchange: folders with a contract, published whole with a manifest."""
