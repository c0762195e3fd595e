"""What is asked of a model: the motivational schema, the types that flow, and the DSPy signatures."""

from signatures.mar import CheckExplanation, ExplainChoice, rank_candidates, score_candidate
from signatures.mope import infer_motivations, reassess_motivations
from signatures.mote import DistillTraits
from signatures.schema import CONSUMER, Dimension, MotivationSchema
from signatures.types import Alignment, Interaction, Item, Motivation, Profile, Rationale, Traits, Verdict

__all__ = [
    "CONSUMER",
    "Alignment",
    "CheckExplanation",
    "Dimension",
    "DistillTraits",
    "ExplainChoice",
    "Interaction",
    "Item",
    "Motivation",
    "MotivationSchema",
    "Profile",
    "Rationale",
    "Traits",
    "Verdict",
    "infer_motivations",
    "rank_candidates",
    "reassess_motivations",
    "score_candidate",
]
