"""Weights that learn from tasks: the shared network, inner loop and meta-updates, and the workers that run them."""
