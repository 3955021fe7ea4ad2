"""Shards of many small images: their format, and reading them."""
