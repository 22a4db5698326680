"""Strategies: they propose architectures and learn from results, with no input or output of their own."""
