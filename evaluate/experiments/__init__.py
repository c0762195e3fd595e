"""Experiments: studies of many rankers, and grids that compare many models per role."""
