"""Attack suite: what a seller gains by writing to the ranker instead of to its users."""
