"""How the program gets better. So far: the coherence measure of eq. 5 and what keeps it honest."""

from optimize.consistency import consistency, discrimination, resemblance

__all__ = ["consistency", "discrimination", "resemblance"]
