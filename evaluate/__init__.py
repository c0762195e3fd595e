"""What a ranker is worth: datasets, frozen cases, metrics with intervals, audit, rankers and the run journal."""
