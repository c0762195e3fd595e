"""What the tests share: servers that play models, and small datasets, cases, programs and runs."""
