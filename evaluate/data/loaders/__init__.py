"""Dataset loaders: Amazon 2014/2018/2023, MovieLens, and plain CSV, Parquet or JSON Lines."""
