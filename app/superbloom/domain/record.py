"""Frozen dataclasses as plain JSON values and back, strictly, led by their type hints."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from superbloom.domain.errors import SuperbloomError

T = TypeVar("T")

Plain = dict[str, "Plain"] | list["Plain"] | str | int | float | bool | None
"""What `json` reads and writes."""

_Reader = Callable[[Any, str], Any]
"""`(plain value, where it stands) -> value`; raises NotARecord."""


class NotARecord(ValueError):
    """A plain value does not fit the class it should become; the text says where and why."""


def to_plain(value: object) -> Plain:
    """A value built of dataclasses, tuples, dictionaries, enums and scalars as plain JSON.

    Raises TypeError on anything else.
    """
    if isinstance(value, Enum):
        return to_plain(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if is_dataclass(value):
        kind: Any = type(value)
        return {name: to_plain(getattr(value, name)) for name in _field_names(kind)}
    raise TypeError(f"{type(value).__name__} has no plain form")


def from_plain(kind: type[T], plain: object) -> T:
    """Build a `kind` from plain JSON values.

    A field without a default must be there, one with a default may be absent, and no other may
    be. Numbers must be finite; an int serves as a float, nothing else is converted. Raises
    NotARecord, or the SuperbloomError with which a class's own check refuses its values.
    """
    hint: Any = kind
    value: T = _reader(hint)(plain, kind.__name__)
    return value


@cache
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


@cache
def _reader(hint: Any) -> _Reader:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in _SCALARS:
        return _SCALARS[hint]
    if origin is Union or origin is types.UnionType:
        return _optional_reader(hint, arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _tuple_reader(_reader(arguments[0]))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping_reader(_reader(arguments[0]), _reader(arguments[1]))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _enum_reader(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return _record_reader(hint)
    raise TypeError(f"{hint!r} has no plain form")


def _refuse(where: str, wanted: str, plain: object) -> NotARecord:
    return NotARecord(f"{where} must be {wanted}, not {type(plain).__name__}")


def _read_text(plain: object, where: str) -> str:
    if not isinstance(plain, str):
        raise _refuse(where, "text", plain)
    if not plain.isascii():
        try:
            plain.encode()
        except UnicodeEncodeError:
            raise NotARecord(f"{where} is not valid Unicode") from None
    return plain


def _read_bool(plain: object, where: str) -> bool:
    if not isinstance(plain, bool):
        raise _refuse(where, "true or false", plain)
    return plain


def _read_int(plain: object, where: str) -> int:
    if not isinstance(plain, int) or isinstance(plain, bool):
        raise _refuse(where, "a whole number", plain)
    return plain


def _read_float(plain: object, where: str) -> float:
    if not isinstance(plain, int | float) or isinstance(plain, bool):
        raise _refuse(where, "a number", plain)
    try:
        number = float(plain)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise NotARecord(f"{where} must be a finite number")
    return number


_SCALARS: dict[Any, _Reader] = {
    str: _read_text,
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
}


def _optional_reader(hint: Any, arguments: tuple[Any, ...]) -> _Reader:
    inner = [argument for argument in arguments if argument is not types.NoneType]
    if len(inner) != 1 or len(arguments) != 2:
        raise TypeError(f"{hint!r} has no plain form: only `X | None` has")
    read = _reader(inner[0])
    return lambda plain, where: None if plain is None else read(plain, where)


def _tuple_reader(read: _Reader) -> _Reader:
    def read_tuple(plain: object, where: str) -> tuple[Any, ...]:
        if not isinstance(plain, list):
            raise _refuse(where, "a list", plain)
        return tuple(read(item, where) for item in plain)

    return read_tuple


def _mapping_reader(read_key: _Reader, read_value: _Reader) -> _Reader:
    def read_mapping(plain: object, where: str) -> dict[Any, Any]:
        if not isinstance(plain, dict):
            raise _refuse(where, "an object", plain)
        return {read_key(key, where): read_value(item, where) for key, item in plain.items()}

    return read_mapping


def _enum_reader(kind: type[Enum]) -> _Reader:
    members = {member.value: member for member in kind}

    def read_enum(plain: object, where: str) -> Enum:
        if not isinstance(plain, str) or plain not in members:
            raise NotARecord(f"{where} must be one of {', '.join(map(str, members))}")
        return members[plain]

    return read_enum


def _record_reader(kind: type) -> _Reader:
    hints = get_type_hints(kind)
    readers = {field.name: _reader(hints[field.name]) for field in fields(kind)}
    needed = {
        field.name
        for field in fields(kind)
        if field.default is MISSING and field.default_factory is MISSING
    }

    def read_record(plain: object, where: str) -> object:
        if not isinstance(plain, dict):
            raise _refuse(where, "an object", plain)
        if missing := needed - plain.keys():
            raise NotARecord(f"{where} lacks {', '.join(sorted(missing))}")
        if unknown := plain.keys() - readers.keys():
            raise NotARecord(f"{where} has no field {', '.join(sorted(map(repr, unknown)))[:200]}")
        values = {name: readers[name](item, f"{where}.{name}") for name, item in plain.items()}
        try:
            return kind(**values)
        except SuperbloomError:
            raise
        except ValueError as error:
            raise NotARecord(f"{where}: {error}") from error

    return read_record
