"""Meta-learning: the inner step on the context, and TRPO through it."""
