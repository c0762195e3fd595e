"""The encoder of all tests of the package's front door."""

from __future__ import annotations

import pytest

from programs.runtime.environment import variable


@pytest.fixture(autouse=True)
def hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test has the weights of a sentence encoder."""
    monkeypatch.setenv(variable("encoder"), "hashing")
