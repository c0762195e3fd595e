"""Published results of the paper, for context only."""
