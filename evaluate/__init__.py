"""What a ranker is worth: data, protocol, statistics, baselines, runs, experiments and reports."""
