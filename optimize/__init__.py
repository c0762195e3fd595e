"""How a program gets better: search over demos and instructions, held-out check, frozen artifact."""
