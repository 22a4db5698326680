"""Task pools, their sources, and the episodes drawn from them."""
