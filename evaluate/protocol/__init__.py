"""Evaluation protocol: held-out targets, negatives, frozen cases, leakage checks."""
