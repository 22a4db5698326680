"""Tabular benchmarks: spaces whose every architecture was trained by others, so that a search costs look-ups."""
