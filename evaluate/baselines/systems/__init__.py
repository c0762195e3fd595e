"""Recommenders that the paper compares with or names, one file a system."""
