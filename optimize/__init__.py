"""How the program gets better: what is maximised, what is searched, and the artifact that is frozen in the end."""

from optimize.artifact import Manifest, freeze, read_manifest, thaw
from optimize.compiler import Compiler, Settings
from optimize.consistency import agreement, consistency, discrimination, resemblance
from optimize.objective import Objective, UserScore, Weights

__all__ = [
    "Compiler",
    "Manifest",
    "Objective",
    "Settings",
    "UserScore",
    "Weights",
    "agreement",
    "consistency",
    "discrimination",
    "freeze",
    "read_manifest",
    "resemblance",
    "thaw",
]
