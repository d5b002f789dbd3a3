"""Neuromodulated CAVIA: context meta-reinforcement learning by neuromodulation (arXiv 2111.00134)."""
