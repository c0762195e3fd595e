"""Feature sources of `learned`, version 2: each computes its features for many lists at once."""
