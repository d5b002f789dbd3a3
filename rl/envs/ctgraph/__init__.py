"""The configurable tree graph (arXiv 2302.10887)."""
