"""Trained baselines as published, one file each: settings, and what is their own idea."""
