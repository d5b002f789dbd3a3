"""A run: built, logged, saved, interrupted, resumed."""
