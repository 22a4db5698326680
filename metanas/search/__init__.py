"""How architectures are found: the loops around strategies and evaluators, and the searches tied to weights."""
