"""Fuzzers of everything that a stranger, an editor or a model writes: files of every kind, and answers.

Inputs are made from sound ones by seeded mutation, so a number names an input for ever. A refusal (`InputError`, for
answers `AdapterParseError`) or a valid result may come out: nothing else, in bounded time, and in few words. The short
run is part of every test run; `MLLM3REC_FUZZ=20000` tries that many inputs (`make soak`).
"""

from __future__ import annotations

import os

INPUTS = int(os.environ.get("MLLM3REC_FUZZ") or 700)
"""Inputs of a whole run, over all kinds."""
