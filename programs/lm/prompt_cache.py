"""What is the same in every prompt of a program is rendered once: instructions, demonstrations, output schema, frame.

DSPy renders all of it anew for every question, which was most of what a call took (benchmarks/throughput.py).
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

_KEPT: WeakKeyDictionary[type, dict[Hashable, Any]] = WeakKeyDictionary()
_MOST = 64

_GAP = "\x00{}\x00"

Message = dict[str, Any]
Made = TypeVar("Made")


def once(signature: type[dspy.Signature], key: Hashable, make: Callable[[], Made]) -> Made:
    """What `make` gave when it was first called for this signature and key; kept as long as the signature lives."""
    kept = _KEPT.setdefault(signature, {})
    if key not in kept:
        if len(kept) >= _MOST:
            kept.clear()
        kept[key] = make()
    found: Made = kept[key]
    return found


class CachedPromptAdapter(_Parent):
    """Stands before a DSPy adapter among the parents of ours: the same messages for less work."""

    def format_system_message(self, signature: type[dspy.Signature]) -> str:
        render = super().format_system_message
        return once(signature, (type(self), "system"), lambda: render(signature))

    def format_demos(self, signature: type[dspy.Signature], demos: Sequence[Any]) -> list[Message]:
        render = super().format_demos
        # By identity and by content: the identity of a demonstration that is gone may be given to another one.
        key = (type(self), "demos", *map(id, demos))
        now = [dict(demo) for demo in demos]
        before, messages = once(signature, key, lambda: (now, render(signature, demos)))
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
        frame = once(
            signature, (type(self), "frame", prefix, suffix), lambda: render(signature, gaps, prefix, suffix, True)
        )
        parts = []
        for name, gap in gaps.items():
            before, _, frame = frame.partition(gap)
            parts += [before, inputs[name]]
        return "".join([*parts, frame])
