"""Prices, retirement dates and refused parameters of hosted models, from the table that LiteLLM ships.

LiteLLM is a dependency of DSPy, so its table is on every machine. The file is read as data: LiteLLM itself takes
seconds to import, and DSPy's own reader of the same table asks the network first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_FILE = "model_prices_and_context_window_backup.json"
_LONG = re.compile(r"_above_(\d+)k_tokens$")
_KINDS = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cached": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
}
"""Fields of a price, and their names in the table."""


def table_entry(model: str) -> Mapping[str, Any] | None:
    """What the table has for a model string `provider/name`; None if it has nothing.

    The price of another provider's deployment of the same model does not count.
    """
    table, (provider, _, name) = _table(), model.partition("/")
    for key in (model, name):
        entry = table.get(key)
        if isinstance(entry, dict) and entry.get("litellm_provider") == provider:
            return entry
    return None


def listed_names() -> Iterator[str]:
    """Model strings of all chat models in the table that have a price for each token."""
    for key, entry in _table().items():
        if isinstance(entry, dict) and entry.get("mode") in ("chat", "responses") and "input_cost_per_token" in entry:
            provider = str(entry.get("litellm_provider"))
            yield key if key.startswith(f"{provider}/") else f"{provider}/{key}"


def listed_price(model: str) -> dict[str, Any] | None:
    """The fields of a `Price` for a model, in dollars per million tokens; None without a price for each token."""
    entry = table_entry(model)
    standard = _tariff(entry) if entry is not None else None
    if entry is None or standard is None:
        return None
    read = entry.get("source") or "no page named"
    fields: dict[str, Any] = standard | {"source": f"{read}, in the table of LiteLLM {version('litellm')}"}
    if (batch := _tariff(entry, "_batches")) is not None:
        fields["batch"] = batch
    if (retired := entry.get("deprecation_date")) is not None:
        fields["retired"] = retired
    thresholds = {int(found[1]) for key in entry if (found := _LONG.search(key)) and key.startswith(_KINDS["input"])}
    # The table has one step for nearly every model; of several, the first is what a longer prompt costs at least.
    for threshold in sorted(thresholds)[:1]:
        above = f"_above_{threshold}k_tokens"
        if (long := _tariff(entry, above)) is not None:
            batch = _tariff(entry, f"{above}_batches")
            fields["long_context"] = long | {"above": 1000 * threshold} | ({"batch": batch} if batch else {})
    return fields


def takes(model: str, ability: str) -> bool | None:
    """What the table says of `supports_ABILITY`; None if it says nothing."""
    said = (table_entry(model) or {}).get(f"supports_{ability}")
    return said if isinstance(said, bool) else None


def _tariff(entry: Mapping[str, Any], suffix: str = "") -> dict[str, float] | None:
    found = {field: entry.get(f"{key}{suffix}") for field, key in _KINDS.items()}
    if not all(isinstance(found[field], (int, float)) for field in ("input", "output")):
        return None
    # Dollars per token have binary noise that dollars per million tokens show.
    return {field: round(1e6 * value, 6) for field, value in found.items() if isinstance(value, (int, float))}


@cache
def _table() -> dict[str, Any]:
    spec = find_spec("litellm")
    path = Path(spec.origin).with_name(_FILE) if spec is not None and spec.origin is not None else None
    table: dict[str, Any] = json.loads(path.read_text("utf-8")) if path is not None and path.exists() else {}
    return table
