"""Experiments: studies (many rankers) and grids (many backends), run and resumed as one."""
