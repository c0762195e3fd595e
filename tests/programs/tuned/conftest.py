"""Tests of fine-tuned models are left out where the extra `finetune` is not installed."""

from __future__ import annotations

from importlib.util import find_spec

from tests.support.tiny_model import NEEDED

collect_ignore = [] if all(map(find_spec, NEEDED)) else ["test_adaptation.py", "test_finetuned.py"]
