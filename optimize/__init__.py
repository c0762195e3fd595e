"""Compiling: search over demos and instructions, held-out check, and artifact."""
