"""Readers of configuration files (TOML, YAML): validated against a type, errors name file and field."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from programs.runtime.errors import InputError, input_error
from signatures.schema import MotivationSchema

Checked = TypeVar("Checked")


def read_toml(path: Path, kind: type[Checked]) -> Checked:
    """The content of a TOML file as `kind`.

    Raises:
        InputError: naming file and field, if it cannot be read or is not a valid `kind`.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable TOML file: {error}") from None
    return validated_config(str(path), data, kind)


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


def load_schema(path: Path) -> MotivationSchema:
    """Read a schema from TOML or YAML: `name`, and `dimensions` with `name`, `definition` and `kind` each.

    Raises:
        InputError: naming the file and the field, if it cannot be read as a schema.
    """
    try:
        text = path.read_text("utf-8-sig")
        data = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
        return MotivationSchema.model_validate(data)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable schema: {error}") from None
    except ValidationError as error:
        raise input_error(path, error) from None
