"""What a fake server was asked, read from the bodies of the requests."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence

from tests.support.fake_server import Body, FakeOpenAI, last_user


def asking(server: FakeOpenAI, cue: str) -> list[Body]:
    """The bodies whose question ends with that cue."""
    return [body for body in server.bodies if last_user(body).endswith(cue)]


def sent(bodies: Sequence[Body]) -> Counter[str]:
    """How often each question was asked."""
    return Counter(json.dumps(body, sort_keys=True) for body in bodies)


def text_of(bodies: Sequence[Body]) -> str:
    """All messages, as one text."""
    return json.dumps([body["messages"] for body in bodies], ensure_ascii=False)


def labels_shown(body: Body) -> dict[str, int]:
    """Label by item text, as the prompt lists them."""
    lines = re.findall(r"^(\d\d): (.*)$", last_user(body), re.MULTILINE)
    return {text: int(label) for label, text in lines}
