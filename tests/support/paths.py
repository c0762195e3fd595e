"""Folders of the repository."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
OLD_FILES = GOLDEN / "commit_910afb0"
"""What the code of that commit wrote."""
TINY_ENCODER = GOLDEN / "tiny_encoder"
"""A sentence encoder in ONNX that gives each of five words a vector of three numbers."""
