"""Networks that several trained baselines share, and the loop that trains them (extra `neural`)."""
