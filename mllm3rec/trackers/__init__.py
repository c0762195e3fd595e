"""Experiment trackers: runs, studies and artifacts in MLflow and Weights & Biases, afterwards or while they run."""
