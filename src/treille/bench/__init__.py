"""Benchmarks: commands that measure Treille against `transformers`. Only the command line imports them."""
