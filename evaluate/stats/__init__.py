"""Statistics: metrics, intervals, significance tests, variance, power and consistency audits."""
