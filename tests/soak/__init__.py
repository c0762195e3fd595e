"""Commands that are killed, interrupted, or run beside one another, against a server that counts what it answers.

A short run is part of every test run; `MLLM3REC_SOAK=1` makes it a long one (`make soak`).
"""

from __future__ import annotations

import os

LONG = bool(os.environ.get("MLLM3REC_SOAK"))
