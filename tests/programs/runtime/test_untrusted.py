"""Texts that a stranger or an editor made: refused in one line that names the file, whatever they hold."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluate.experiments.grid import read_grid
from evaluate.experiments.study_spec import read_study
from evaluate.protocol.cases import load_cases
from programs.lm.ledger import Call, Ledger, read_calls
from programs.lm.limits import stated_limits
from programs.lm.prices import read_prices
from programs.runtime.config_file import load_schema
from programs.runtime.errors import MESSAGE_CHARACTERS, InputError
from programs.runtime.untrusted import parse_untrusted_json

STUDY = """
name = "s"
[[datasets]]
name = "d"
source = "demo"
[[protocols]]
name = "p"
[[rankers]]
ranker = "prior"
"""
GRID = 'mope = ["a"]\nmote = ["a"]\nmar = ["a"]\n{}\n[backends.a]\nmodel = "m"\n{}\n'
PRICES = 'dated = 2026-01-01\nsource = "s"\n[models]\nm = {{ input = {}, output = 1 }}\n'
SCHEMA = (
    "name: s\ndimensions:\n- {name: one, definition: d, kind: ethical}\n- {name: two, definition: d, kind: ethical}\n"
)

READERS: dict[str, Callable[[Path], Any]] = {
    "study.toml": read_study,
    "grid.toml": read_grid,
    "prices.toml": read_prices,
    "limits.toml": stated_limits,
    "schema.toml": load_schema,
    "schema.yaml": load_schema,
    "cases.jsonl": load_cases,
    "ledger.jsonl": lambda path: list(read_calls(path)),
}

TEXTS: dict[str, bytes] = {
    "a thousand brackets": b"x = " + b"[" * 5000,
    "only brackets": b"[" * 5000,
    "only braces": b'{"a":' * 5000,
    "closed brackets": b"x = " + b"[" * 2000 + b"]" * 2000,
    "a number of 5,000 digits": b"x = " + b"7" * 5000,
    "a bare number of 5,000 digits": b"7" * 5000,
    "not a number": b"x = nan",
    "infinity": b"x = -inf",
    "half a character": b'x = "\\ud800"',
    "half a character in YAML": b'"\\ud800": 1',
    "a NUL byte": b'x = "\0"',
    "no UTF-8": b'x = "\xff"',
    "UTF-16": 'x = "a"'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbfx = "a"',
    "a date that is none": b"x = 2026-13-45",
    "a long key": b"k" * 50_000 + b" = 1",
    "a key of many parts": b"a." * 100_000 + b"a = 1",
    "a long value": b'name = "' + b"v" * 50_000 + b'"',
    "many keys": b"\n".join(b"key%d = 1" % n for n in range(5000)),
    "control characters": b'x = "\\u001b[2J"\n\x1b[2J',
    "an alias": b"a: &a [x, x]\nb: [*a, *a]",
    "an alias of itself": b"a: &a\n  <<: *a",
    "an empty tag": b'!!int ""',
    "an unknown tag": b"!!python/object:os.system x",
    "a list as a key": b"? [a]\n: b",
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", READERS)
def test_a_text_that_is_not_what_it_should_be_is_refused(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(TEXTS[text] + b"\n")
    with pytest.raises(InputError) as refused:
        READERS[name](path)
    said = str(refused.value)
    assert said.startswith(str(path))
    assert len(said) <= min(MESSAGE_CHARACTERS, len(str(path)) + 700)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "text", "field"),
    [
        ("grid.toml", GRID.format("margin = nan", ""), "margin"),
        ("grid.toml", GRID.format("weight = nan", ""), "weight"),
        ("grid.toml", GRID.format("confidence = inf", ""), "confidence"),
        ("grid.toml", GRID.format("workers = 100000000", ""), "workers"),
        ("grid.toml", GRID.format("", "temperature = nan"), "backends.a.temperature"),
        ("grid.toml", GRID.format("", "top_p = -inf"), "backends.a.top_p"),
        ("grid.toml", GRID.replace('["a"]', str(["a"] * 100)).format("", ""), "1,000,000 mixes"),
        ("prices.toml", PRICES.format("nan"), "models.m.input"),
        ("prices.toml", PRICES.format("inf"), "models.m.input"),
        ("prices.toml", PRICES.format("-1"), "models.m.input"),
        ("limits.toml", "[m]\nrpm = nan\n", "m.rpm"),
        ("limits.toml", "[m]\nrpm = 0\n", "m.rpm"),
        ("study.toml", STUDY + "weight = nan\n", "rankers.0.weight"),
        ("study.toml", STUDY + "seeds = [-1]\n", "rankers.0.seeds.0"),
        ("study.toml", STUDY + "seeds = [9999999999999]\n", "rankers.0.seeds.0"),
        ("study.toml", STUDY + "[budget]\nusd = nan\n", "budget.usd"),
        ("study.toml", STUDY.replace("[[rankers]]", "draws = 1000000000000\n[[rankers]]"), "1,000,000,000,000 runs"),
        ("study.toml", STUDY.replace('[[rankers]]\nranker = "prior"', "") + "", "rankers"),
        ("study.toml", "rankers = [1]\n" + STUDY.replace('[[rankers]]\nranker = "prior"', ""), "rankers.0"),
        ("study.toml", 'reference = "' + "r" * 5000 + '"' + STUDY, "has the label 'rrr"),
    ],
)
def test_a_field_that_cannot_be_is_named(tmp_path: Path, name: str, text: str, field: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        READERS[name](path)
    assert field in str(refused.value)
    assert str(refused.value).startswith(str(path))
    assert len(str(refused.value)) < len(str(path)) + 500


def test_sound_files_begin_with_a_byte_order_mark_or_without(tmp_path: Path) -> None:
    sound = {
        "study.toml": STUDY,
        "grid.toml": GRID.format("", ""),
        "prices.toml": PRICES.format("1"),
        "limits.toml": "[m]\nrpm = 1\n",
        "schema.yaml": SCHEMA,
    }
    for name, text in sound.items():
        path = tmp_path / name
        path.write_text(text, "utf-8")
        without = READERS[name](path)
        path.write_text(text, "utf-8-sig")
        assert READERS[name](path) == without
    assert read_prices(tmp_path / "prices.toml").dated == datetime.date(2026, 1, 1)


@pytest.mark.parametrize("name", ["grid.toml", "schema.yaml"])
def test_a_file_too_large_for_its_kind_is_not_parsed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"# " + b"x" * (1 << 21))
    with pytest.raises(InputError, match="too large for a"):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("text", [b"NaN", b"[Infinity]", b'{"a": -Infinity}', b'"\\ud800"', b'{"\\udfff": 1}', b"\xff"])
def test_json_has_whole_characters_and_finite_numbers(text: bytes) -> None:
    with pytest.raises(InputError, match=r"^here: not a readable JSON text: .*; mend it$"):
        parse_untrusted_json(text, "here", "mend it")
    assert parse_untrusted_json(b'\xef\xbb\xbf{"a": "\\ud83d\\ude00"}', "here", "") == {"a": "\U0001f600"}


def test_a_ledger_names_the_line_with_a_foreign_byte_and_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    call = b'{"role":"mar","model":"m\xe2\x80\xa8n","tokens_in":3}\n'
    path.write_bytes(call + b'{"role":"mar","model":"\xff"}\n' + call)
    for read in (lambda: list(read_calls(path)), lambda: [Ledger(path)]):
        with pytest.raises(InputError, match=rf"^{path}:2: not a ledger line: .*remove this line"):
            read()
    torn = call * 2 + b'{"role":"mar","model":"\xff'
    path.write_bytes(torn)
    ledger = Ledger(path)
    assert ledger.total().tokens_in == 6, "a line separator in a name ends no line; a cut line is left out"
    assert path.read_bytes() == torn, "a dry run changes nothing"
    ledger.record(Call(role="mar", model="m"))
    ledger.close()
    assert path.read_bytes() == call * 2 + b'{"role":"mar","model":"m"}\n'
