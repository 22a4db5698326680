"""What an architecture will reach, learned from the evaluations in the store."""
