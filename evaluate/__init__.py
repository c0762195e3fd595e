"""Evaluation of rankers: data, protocol, statistics, baselines, runs, experiments and reports."""
