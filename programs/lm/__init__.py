"""Language models: roles, rate limits, response cache, call log, adapters and endpoints."""
