"""Runs: the run directory, its journal, the run loop, metrics and costs."""
