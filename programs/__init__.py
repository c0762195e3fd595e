"""How a model is asked: MOPE, MOTE and MAR as DSPy modules, the composed program, the LM layer and the prior."""

from programs.mar import Embedding, Listwise, Pointwise
from programs.mope import MOPE
from programs.mote import MOTE
from programs.program import PROGRAMS, Fusion, MLLM3Rec, Parts
from programs.ranker import Case, Ranker, Ranking

__all__ = [
    "MOPE",
    "MOTE",
    "PROGRAMS",
    "Case",
    "Embedding",
    "Fusion",
    "Listwise",
    "MLLM3Rec",
    "Parts",
    "Pointwise",
    "Ranker",
    "Ranking",
]
