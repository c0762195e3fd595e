"""The training-free prior: scorers, their fusion, text embeddings and candidate retrieval."""
