"""Options that several API functions take: models, motivational schema and budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import dspy
from pydantic import ValidationError

from programs.lm.ledger import Budget
from programs.lm.model_options import ModelOptions
from programs.runtime.config_file import load_schema
from programs.runtime.errors import input_error
from signatures.schema import MotivationSchema

if TYPE_CHECKING:
    from programs.lm.model_options import Model

Schema = MotivationSchema | str | Path


class Models(TypedDict, total=False):
    """Which models are asked; each a model string (docs/models.md) or a `dspy.LM`.

    Attributes:
        preset: A name of `PRESETS`; `local` unless DSPy was configured with a model.
        model: For every role.
        mope, mote, mar, judge: For one role.
    """

    preset: str | None
    model: Model | None
    mope: Model | None
    mote: Model | None
    mar: Model | None
    judge: Model | None


def model_options(models: Models) -> ModelOptions | None:
    """The options, or None where the model of `dspy.configure` is to be asked directly.

    Where nothing is chosen and DSPy was configured with a `dspy.LM`, that model serves every role.
    """
    chosen = {name: value for name, value in models.items() if value is not None}
    if chosen:
        return ModelOptions(**chosen)  # type: ignore[arg-type]
    lm = dspy.settings.lm
    if lm is None:
        return ModelOptions()
    return ModelOptions(model=lm) if isinstance(lm, dspy.LM) else None


def read_schema(schema: Schema | None) -> MotivationSchema | None:
    """A motivational schema from a TOML or YAML file, or as it is.

    Raises:
        InputError: naming file and field, if it cannot be read.
    """
    return load_schema(Path(schema)) if isinstance(schema, str | Path) else schema


def budget_of(budget_usd: float | None, max_calls: int | None) -> Budget:
    """Limits on what is really paid; None is no limit.

    Raises:
        InputError: if one is negative or not a finite number.
    """
    try:
        return Budget(usd=budget_usd, calls=max_calls)
    except ValidationError as error:
        raise input_error("budget", error) from None
