"""The base of all records: frozen, and checked field by field when made."""

from __future__ import annotations

import functools
import types
import typing
from typing import Any

import msgspec

from aidpost.errors import InvalidRecordError

Span = tuple[int, int]
"""Half-open sample range [start, stop)."""


@functools.cache
def _field_types(kind: type) -> tuple[tuple[str, frozenset[type], Any], ...]:
    """Of each field: its name, the exact classes that need no further look, and its type."""
    fields = []
    for name, declared in typing.get_type_hints(kind).items():
        if typing.get_origin(declared) is typing.ClassVar:
            continue
        options = typing.get_args(declared) if isinstance(declared, types.UnionType) else (declared,)
        fields.append((name, frozenset(option for option in options if isinstance(option, type)), declared))
    return tuple(fields)


def require(condition: bool, record: object, cause: str) -> None:
    """Raise InvalidRecordError with that cause unless the condition holds."""
    if not condition:
        raise InvalidRecordError(operation="making a record", target=type(record).__name__, cause=cause)


def require_probabilities(record: object, values: typing.Iterable[float | None]) -> None:
    """Raise InvalidRecordError unless every value is None or within 0 to 1."""
    for value in values:
        require(value is None or 0.0 <= value <= 1.0, record, f"a probability is {value}, not within 0 to 1")


def require_spans(record: object, spans: tuple[Span, ...], length: int) -> None:
    """Raise InvalidRecordError unless the spans are in order, apart and within 0..length."""
    last = 0
    for start, stop in spans:
        require(last <= start < stop <= length, record, f"span {start}..{stop} is out of order or outside 0..{length}")
        last = stop


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all records: checks each field's type when it is made.

    Raises
    ------
    InvalidRecordError
        A field has the wrong type, or breaks the rule that its class states.
    """

    def __post_init__(self) -> None:
        for name, exact, declared in _field_types(type(self)):
            value = getattr(self, name)
            if type(value) not in exact:
                self._check_type(name, value, declared)
        self._check()

    def _check_type(self, name: str, value: object, declared: Any) -> None:
        try:
            converted = msgspec.convert(value, declared, strict=True)
        except msgspec.ValidationError as error:
            cause = str(error)
        else:
            # convert() takes "left" for Eye.LEFT and a list for a tuple, as the wire needs; callers get no such ease
            if type(converted) is type(value) or (type(value), type(converted)) == (int, float):
                return
            cause = f"expected {type(converted).__name__}, got {type(value).__name__}"
        target = f"{type(self).__name__}.{name}"
        raise InvalidRecordError(operation="making a record", target=target, cause=cause)

    def _check(self) -> None:
        """Rules between fields; overridden where there are any."""
