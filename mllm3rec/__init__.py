"""M-LLM3Rec: motivation-aware recommendation as a DSPy program.

    import mllm3rec as m3

Each name is imported when it is first used, so `import mllm3rec` is fast.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Without this, importing DSPy's LiteLLM downloads a price list from GitHub.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")

if TYPE_CHECKING:
    from evaluate.attacks.attack import Attack, Insertion
    from evaluate.data.dataset import Dataset
    from evaluate.data.load import load_dataset
    from evaluate.protocol.cases import Cases, draw_cases, load_cases
    from evaluate.protocol.protocol import EvaluationProtocol
    from evaluate.runs.evaluation import Evaluation
    from evaluate.stats.intervals import Difference, Estimate
    from evaluate.stats.metrics import hit, ndcg
    from mllm3rec.api.attack import AttackOutcome, attack
    from mllm3rec.api.compilation import compile_program
    from mllm3rec.api.distillation import Distillation, distill
    from mllm3rec.api.evaluation import evaluate
    from mllm3rec.api.experiments import Comparison, Study, compare, run_study
    from mllm3rec.api.gating import fit_gate_on_run
    from mllm3rec.api.metric import metric
    from mllm3rec.api.program import Program, load_artifact, program
    from mllm3rec.api.recommendation import Recommendation, Recommendations
    from mllm3rec.stages.job import Job
    from mllm3rec.stages.settings import StageSettings
    from mllm3rec.stages.stage import Stage
    from mllm3rec.stages.whole import distill_all, profile_all, recommend_all
    from programs.batch.question_file import WaveWritten
    from programs.lm.backends import Backends, UnparsableError
    from programs.lm.roles import PRESETS, RoleConfig, Roles
    from programs.mar import Embedding, Listwise, Pointwise, Rerank
    from programs.mope import MOPE
    from programs.mote import MOTE
    from programs.prior.default_encoder import use_encoder
    from programs.prior.prior import Prior
    from programs.program import PROGRAMS, Fusion, MLLM3Rec
    from programs.ranker import Ranker
    from programs.runtime.errors import BudgetExceededError, InputError, MissingExtraError
    from programs.runtime.events import Event, Note, Progress
    from signatures.rows import Case, Ranking, Usage
    from signatures.schema import CONSUMER, MotivationSchema
    from signatures.types import Interaction, Item, Motivation, Profile, Traits

_MODULES = {
    "evaluate.attacks.attack": ("Attack", "Insertion"),
    "evaluate.data.dataset": ("Dataset",),
    "evaluate.data.load": ("load_dataset",),
    "evaluate.protocol.cases": ("Cases", "draw_cases", "load_cases"),
    "evaluate.protocol.protocol": ("EvaluationProtocol",),
    "evaluate.runs.evaluation": ("Evaluation",),
    "evaluate.stats.intervals": ("Difference", "Estimate"),
    "evaluate.stats.metrics": ("hit", "ndcg"),
    "mllm3rec.api.attack": ("AttackOutcome", "attack"),
    "mllm3rec.api.compilation": ("compile_program",),
    "mllm3rec.api.distillation": ("Distillation", "distill"),
    "mllm3rec.api.evaluation": ("evaluate",),
    "mllm3rec.api.experiments": ("Comparison", "Study", "compare", "run_study"),
    "mllm3rec.api.gating": ("fit_gate_on_run",),
    "mllm3rec.api.metric": ("metric",),
    "mllm3rec.api.program": ("Program", "load_artifact", "program"),
    "mllm3rec.api.recommendation": ("Recommendation", "Recommendations"),
    "mllm3rec.stages.job": ("Job",),
    "mllm3rec.stages.settings": ("StageSettings",),
    "mllm3rec.stages.stage": ("Stage",),
    "mllm3rec.stages.whole": ("distill_all", "profile_all", "recommend_all"),
    "programs.batch.question_file": ("WaveWritten",),
    "programs.lm.backends": ("Backends", "UnparsableError"),
    "programs.lm.roles": ("PRESETS", "RoleConfig", "Roles"),
    "programs.mar": ("Embedding", "Listwise", "Pointwise", "Rerank"),
    "programs.mope": ("MOPE",),
    "programs.mote": ("MOTE",),
    "programs.prior.default_encoder": ("use_encoder",),
    "programs.prior.prior": ("Prior",),
    "programs.program": ("PROGRAMS", "Fusion", "MLLM3Rec"),
    "programs.ranker": ("Ranker",),
    "programs.runtime.errors": ("BudgetExceededError", "InputError", "MissingExtraError"),
    "programs.runtime.events": ("Event", "Note", "Progress"),
    "signatures.rows": ("Case", "Ranking", "Usage"),
    "signatures.schema": ("CONSUMER", "MotivationSchema"),
    "signatures.types": ("Interaction", "Item", "Motivation", "Profile", "Traits"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "CONSUMER",
    "MOPE",
    "MOTE",
    "PRESETS",
    "PROGRAMS",
    "Attack",
    "AttackOutcome",
    "Backends",
    "BudgetExceededError",
    "Case",
    "Cases",
    "Comparison",
    "Dataset",
    "Difference",
    "Distillation",
    "Embedding",
    "Estimate",
    "Evaluation",
    "EvaluationProtocol",
    "Event",
    "Fusion",
    "InputError",
    "Insertion",
    "Interaction",
    "Item",
    "Job",
    "Listwise",
    "MLLM3Rec",
    "MissingExtraError",
    "Motivation",
    "MotivationSchema",
    "Note",
    "Pointwise",
    "Prior",
    "Profile",
    "Program",
    "Progress",
    "Ranker",
    "Ranking",
    "Recommendation",
    "Recommendations",
    "Rerank",
    "RoleConfig",
    "Roles",
    "Stage",
    "StageSettings",
    "Study",
    "Traits",
    "UnparsableError",
    "Usage",
    "WaveWritten",
    "__version__",
    "attack",
    "compare",
    "compile_program",
    "distill",
    "distill_all",
    "draw_cases",
    "evaluate",
    "fit_gate_on_run",
    "hit",
    "load_artifact",
    "load_cases",
    "load_dataset",
    "metric",
    "ndcg",
    "profile_all",
    "program",
    "recommend_all",
    "run_study",
    "use_encoder",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mllm3rec")
    if name not in _HOME:
        raise AttributeError(f"module 'mllm3rec' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
