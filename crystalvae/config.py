"""Strict configuration: plain dataclasses, written as TOML by people, JSON by us."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from crystalvae.errors import ConfigError

T = TypeVar("T")


def require_at_least(config: Any, low: float, *names: str) -> None:
    """Refuse small values of some fields, for a dataclass's ``__post_init__``.

    Raises:
        ValueError: one is smaller; ``from_dict`` says where.
    """
    for name in names:
        value = getattr(config, name)
        if not value >= low:
            raise ValueError(f"{name} must be at least {low}, not {value}")


def from_dict(kind: type[T], values: dict[str, Any], where: str = "") -> T:
    """Build a dataclass from a dictionary, refusing what it does not know.

    Args:
        kind: the dataclass.
        values: its fields; nested dataclasses as dictionaries.
        where: dotted path for messages.

    Raises:
        ConfigError: an unknown key (with the closest known one), a wrong type, a
            missing or impossible value.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where or 'config'} must be a table, not {values!r}")
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise ConfigError(
                f"unknown key {where + key!r}{hint} Known: {', '.join(sorted(known))}"
            )
    built = {
        key: _convert(hints[key], value, f"{where}{key}")
        for key, value in values.items()
    }
    try:
        return kind(**built)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where.rstrip('.') or 'config'}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where + ".")
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} must be a list, not {value!r}")
        return origin(_convert(args[0], item, where) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be a table, not {value!r}")
        if len(args) == 2 and args[1] is not Any:
            return {k: _convert(args[1], v, f"{where}.{k}") for k, v in value.items()}
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    is_bool = isinstance(value, bool)
    if hint in (int, float, str, bool) and (
        not isinstance(value, hint) or (is_bool and hint is not bool)
    ):
        raise ConfigError(f"{where} must be of type {hint.__name__}, not {value!r}")
    return value


def read_toml(kind: type[T], path: Path, overrides: list[str] | None = None) -> T:
    """Read a dataclass from a TOML file.

    Args:
        kind: the dataclass.
        path: the file.
        overrides: ``a.b=value`` settings (TOML values) that win over the file.

    Raises:
        ConfigError: the file is missing or wrong.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no config file {str(path)!r}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    for override in overrides or []:
        key, found, text = override.partition("=")
        if not found:
            raise ConfigError(f"--set needs key=value, not {override!r}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        table = values
        *parents, last = key.strip().split(".")
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ConfigError(
                    f"--set {key.strip()}: {parent} is no table of settings"
                )
        table[last] = value
    return from_dict(kind, values)
