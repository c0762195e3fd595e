"""The README's example, run as it stands there."""

from __future__ import annotations

import doctest
import re

import pytest

from tests.support.paths import ROOT

README = ROOT / "README.md"


@pytest.mark.llm
def test_the_ten_lines_print_what_the_readme_says() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    (block,) = [text for text in blocks if ">>>" in text]
    parsed = doctest.DocTestParser().get_doctest(block, {}, "README.md", str(README), 0)
    assert len(parsed.examples) == 7
    runner = doctest.DocTestRunner(verbose=False)
    assert runner.run(parsed).failed == 0


def test_every_name_of_the_readme_is_part_of_the_api() -> None:
    import mllm3rec as m3

    named = set(re.findall(r"\bm3\.(\w+)", README.read_text("utf-8")))
    assert len(named) >= 10
    assert named <= set(m3.__all__)
