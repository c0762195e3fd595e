"""The demo store: invented products and simulated users with known motivations."""
