"""Readers of configuration files (TOML, YAML) and of our own JSON files, validated; errors name file and field."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from programs.runtime.errors import InputError, input_error, nearest_name
from programs.runtime.untrusted import parse_untrusted, read_regular
from signatures.schema import MotivationSchema

Checked = TypeVar("Checked")

MAX_CONFIG_BYTES, MAX_SCHEMA_BYTES = 1 << 20, 1 << 17
"""Of files that people write; the largest of this project has 10 kB. The parser of YAML takes seconds for 100 kB."""

MAX_JSON_BYTES = 256 << 20
"""Of files that a command wrote; the ranks of a million users over a whole catalogue have 30 MB."""

_MAX_DOTS = 1000
"""In a line of TOML: its parser takes time that is quadratic in the length of a dotted key."""


def read_toml(path: Path, kind: type[Checked]) -> Checked:
    """The content of a TOML file as `kind`.

    Raises:
        InputError: naming file and field, if it cannot be read or is not a valid `kind`.
    """
    return validated_config(str(path), _read(path, _toml, "TOML file", MAX_CONFIG_BYTES), kind)


def load_schema(path: Path) -> MotivationSchema:
    """Read a schema from TOML or YAML: `name`, and `dimensions` with `name`, `definition` and `kind` each.

    Raises:
        InputError: naming the file and the field, if it cannot be read as a schema.
    """
    parse = _toml if path.suffix == ".toml" else _yaml
    return validated_config(str(path), _read(path, parse, "schema", MAX_SCHEMA_BYTES), MotivationSchema)


def validated_config(where: str, data: Any, kind: type[Checked]) -> Checked:
    """Configuration data as `kind`.

    Args:
        where: Its file or name, for messages.

    Raises:
        InputError: naming `where` and the invalid field.
    """
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        raise input_error(where, error) from None


def read_json(path: Path, kind: Any, remedy: str) -> Any:
    """The content of a JSON file that a command wrote earlier.

    Args:
        kind: Its type.
        remedy: What to do if the file is damaged.

    Raises:
        InputError: naming file, field and remedy, if it cannot be read or is not a valid `kind`.
    """
    try:
        return TypeAdapter(kind).validate_json(read_regular(path, MAX_JSON_BYTES))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; {remedy}") from None
    except ValidationError as error:
        raise input_error(path, error, remedy) from None


def _read(path: Path, parse: Callable[[str], Any], form: str, most: int) -> Any:
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        beside = (one.name for one in path.parent.glob(f"*{path.suffix}"))
        hint = nearest_name(path.name, beside) if isinstance(error, FileNotFoundError) else ""
        raise InputError(f"{path}: {error.strerror}{hint.removesuffix('.')}") from None
    if len(content) > most:
        raise InputError(f"{path}: is larger than {most >> 10:,} kB, too large for a {form}")
    return parse_untrusted(parse, content, path, form, "correct the file")


def _toml(text: str) -> Any:
    if any(line.count(".") > _MAX_DOTS for line in text.split("\n")):
        raise ValueError(f"a line has more than {_MAX_DOTS:,} dots")
    return tomllib.loads(text)


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases: a few lines of them stand for billions of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("aliases (*name) are not allowed, write the value again")
        return super().compose_node(parent, index)


def _yaml(text: str) -> Any:
    return yaml.load(text, _PlainLoader)  # noqa: S506 - a safe loader
