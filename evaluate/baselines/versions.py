"""Settings of trained baselines by name and record: runs are finished with the version that they were begun with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluate.baselines import TRAINED
from evaluate.baselines.baseline import Baseline
from evaluate.baselines.learned import Learned
from evaluate.baselines.learned_v1 import LearnedV1
from evaluate.baselines.systems.a_llmrec import FIRST_ALLMREC
from evaluate.baselines.systems.diff4rec import FIRST_DIFF4REC
from evaluate.baselines.systems.diffuasr import FIRST_DIFFUASR
from evaluate.baselines.systems.sasrec import FIRST_SASREC

EARLIER_DEFAULTS: tuple[Baseline, ...] = (FIRST_ALLMREC, FIRST_DIFF4REC, FIRST_DIFFUASR, FIRST_SASREC)
"""Default settings that were changed since."""


def default_of_run(ranker: str, recorded: Mapping[str, Any]) -> Baseline:
    """Default settings of a baseline of the version that a run was begun with.

    Args:
        ranker: Name of the baseline.
        recorded: Settings in the run's manifest, as JSON; those of another baseline give the newest default.
    """
    if settings_class(ranker, recorded) is LearnedV1:
        return LearnedV1()
    earlier = (one for one in EARLIER_DEFAULTS if one.name == ranker and one.model_dump(mode="json") == recorded)
    return next(earlier, TRAINED[ranker]())


def settings_class(ranker: str, settings: Mapping[str, Any]) -> type[Baseline]:
    """The settings class of a baseline that recorded settings belong to.

    Args:
        ranker: Name of the baseline.
        settings: Settings as JSON; those of `learned` name their version since version 2.
    """
    if ranker == Learned.name and settings.keys() == LearnedV1.model_fields.keys():
        return LearnedV1
    return TRAINED[ranker]
