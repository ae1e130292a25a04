"""Attention over a forest of token paths: `reference` is the definition, `merged` and `few_rows` are the fast ways."""
