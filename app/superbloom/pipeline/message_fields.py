"""Control messages as JSON of their fields, checked before use."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from superbloom.domain.errors import ProtocolViolation

_MAX_JSON_BYTES = 16 * 1024
_FIELD_TYPES: dict[str, type] = {"int": int, "str": str, "bool": bool}


def encode_fields(message: Any) -> bytes:
    """The fields of a dataclass of numbers, texts and truth values."""
    body = {f.name: getattr(message, f.name) for f in dataclasses.fields(message)}
    return json.dumps(body).encode()


def decode_fields(cls: type[Any], body: bytes) -> Any:
    """The message of `cls` in `body`.

    Raises ProtocolViolation unless exactly its fields are there, each of its type and in bounds.
    """
    name = cls.__name__
    if len(body) > _MAX_JSON_BYTES:
        raise ProtocolViolation(f"A peer sent a {name} message that is too long.")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise ProtocolViolation(f"A peer sent a {name} message that is not readable.") from None
    expected = {f.name: _FIELD_TYPES[str(f.type)] for f in dataclasses.fields(cls)}
    if not isinstance(fields, dict) or fields.keys() != expected.keys():
        raise ProtocolViolation(f"A peer sent a {name} message with the wrong fields.")
    for key, kind in expected.items():
        if type(fields[key]) is not kind or not _is_sound(fields[key]):
            raise ProtocolViolation(f"A peer sent a {name} message with a bad {key!r}.")
    return cls(**fields)


def _is_sound(value: int | str | bool) -> bool:
    """False for numbers out of bounds and for text that could not be passed on as UTF-8."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
        return True
    return 0 <= value < 2**32
