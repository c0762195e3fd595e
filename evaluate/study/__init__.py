"""A study: many runs described by one file, run resumably, and reported together."""
