"""The demo store: invented items and simulated users with known motivations."""
