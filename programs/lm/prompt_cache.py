"""Prompt cache: instructions, demos, output schema and frame of a prompt are rendered once per signature.

DSPy renders them anew for every question, which was most of the client's time per call (benchmarks/throughput.py).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import dspy

# At run time a plain class: a subclass of `dspy.Adapter` gets methods of its own that would hide those after it.
if TYPE_CHECKING:
    from dspy import Adapter as _Parent
else:
    _Parent = object

_CACHE: WeakKeyDictionary[type, dict[Hashable, Any]] = WeakKeyDictionary()
_MAX_ENTRIES = 64

_GAP = "\x00{}\x00"

Message = dict[str, Any]
Made = TypeVar("Made")


def cached_per_signature(signature: type[dspy.Signature], key: Hashable, make: Callable[[], Made]) -> Made:
    """The value of `make()`, computed once per signature and key and kept as long as the signature lives."""
    values = _CACHE.setdefault(signature, {})
    if key not in values:
        if len(values) >= _MAX_ENTRIES:
            values.clear()
        values[key] = make()
    value: Made = values[key]
    return value


class CachedPromptAdapter(_Parent):
    """Mixin to put before a DSPy adapter: the same messages, with their constant parts cached."""

    def format_system_message(self, signature: type[dspy.Signature]) -> str:
        render = super().format_system_message
        return cached_per_signature(signature, (type(self), "system"), lambda: render(signature))

    def format_demos(self, signature: type[dspy.Signature], demos: Sequence[Any]) -> list[Message]:
        render = super().format_demos
        # By identity and by content: the identity of a demo that was deleted may be given to another one.
        key = (type(self), "demos", *map(id, demos))
        now = [dict(demo) for demo in demos]
        before, messages = cached_per_signature(signature, key, lambda: (now, render(signature, demos)))
        if before != now:
            messages = render(signature, demos)
        return [dict(message) for message in messages]

    def format_user_message_content(
        self,
        signature: type[dspy.Signature],
        inputs: dict[str, Any],
        prefix: str = "",
        suffix: str = "",
        main_request: bool = False,
    ) -> str:
        render = super().format_user_message_content
        # Texts stand in a prompt as they are; DSPy makes a pydantic type for each of them to find that out.
        if not main_request or not all(type(inputs.get(name)) is str for name in signature.input_fields):
            return render(signature, inputs, prefix, suffix, main_request)
        gaps = {name: _GAP.format(name) for name in signature.input_fields}
        frame = cached_per_signature(
            signature, (type(self), "frame", prefix, suffix), lambda: render(signature, gaps, prefix, suffix, True)
        )
        parts = []
        for name, gap in gaps.items():
            before, _, frame = frame.partition(gap)
            parts += [before, inputs[name]]
        return "".join([*parts, frame])
