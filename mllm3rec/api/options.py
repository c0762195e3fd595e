"""Options that several API functions take: models, motivational schema and budget."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import dspy
from pydantic import ValidationError

from evaluate.baselines import TRAINED
from programs.lm.ledger import Budget
from programs.lm.model_options import ModelOptions
from programs.runtime.config_file import load_schema
from programs.runtime.errors import input_error
from signatures.schema import MotivationSchema

if TYPE_CHECKING:
    from programs.lm.model_options import Model

Schema = MotivationSchema | str | Path


class Models(TypedDict, total=False):
    """Models to use; each is a model string (docs/models.md) or a `dspy.LM`.

    Attributes:
        preset: A name of `PRESETS`; `local` unless DSPy was configured with a model.
        model: Model of every role.
        mope, mote, mar, judge: Model of one role.
        timeout: Most seconds of one call; None for 600.
        max_tokens: Most tokens of one answer; a reasoning model needs more tokens than its answer has.
    """

    preset: str | None
    model: Model | None
    mope: Model | None
    mote: Model | None
    mar: Model | None
    judge: Model | None
    timeout: float | None
    max_tokens: int | None


def model_options(models: Models) -> ModelOptions | None:
    """The options; None means that programs ask the model of `dspy.configure` directly.

    Without any option, the `dspy.LM` of `dspy.configure` is the model of every role.
    """
    chosen = {name: value for name, value in models.items() if value is not None}
    lm = dspy.settings.lm
    if lm is not None and not chosen.keys() - {"timeout", "max_tokens"}:
        if not isinstance(lm, dspy.LM):
            return None
        chosen["model"] = lm
    return ModelOptions(**chosen)  # type: ignore[arg-type]


def options_for(ranker: str, models: Models) -> ModelOptions | None:
    """The options for a ranker; a trained baseline asks no model, so that of `dspy.configure` is none of them."""
    if ranker not in TRAINED:
        return model_options(models)
    return ModelOptions(**{name: value for name, value in models.items() if value is not None})  # type: ignore[arg-type]


def read_schema(schema: Schema | None) -> MotivationSchema | None:
    """The schema; a path is read as a TOML or YAML file.

    Raises:
        InputError: naming file and field, if the file is not valid.
    """
    return load_schema(Path(schema)) if isinstance(schema, str | Path) else schema


def tighter(one: Budget, other: Budget) -> Budget:
    """Limits that keep both budgets; the minutes are those that end first.

    >>> tighter(Budget(usd=1.0), Budget(usd=2.0, calls=10))
    Budget(usd=1.0, calls=10, minutes=None)
    """

    def minutes_left(budget: Budget) -> float:
        left = budget.to_send().minutes
        return math.inf if left is None else left

    usd, calls = [
        min((limit for limit in limits if limit is not None), default=None)
        for limits in ((one.usd, other.usd), (one.calls, other.calls))
    ]
    return min(one, other, key=minutes_left).model_copy(update={"usd": usd, "calls": calls})


def budget_of(budget_usd: float | None, max_calls: int | None, max_minutes: float | None = None) -> Budget:
    """Limits on dollars, calls and minutes, without cache hits; None is no limit.

    Raises:
        InputError: if one is negative or not a finite number.
    """
    try:
        return Budget(usd=budget_usd, calls=max_calls, minutes=max_minutes)
    except ValidationError as error:
        raise input_error("budget", error) from None
