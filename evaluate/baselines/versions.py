"""Settings of trained baselines by name and record: runs are finished with the version that they were begun with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluate.baselines import TRAINED
from evaluate.baselines.baseline import Baseline
from evaluate.baselines.learned import Learned
from evaluate.baselines.learned_v1 import LearnedV1


def settings_class(ranker: str, settings: Mapping[str, Any]) -> type[Baseline]:
    """The settings class of a baseline that recorded settings belong to.

    Args:
        ranker: Name of the baseline.
        settings: Settings as JSON; those of `learned` name their version since version 2.
    """
    if ranker == Learned.name and settings.keys() == LearnedV1.model_fields.keys():
        return LearnedV1
    return TRAINED[ranker]
