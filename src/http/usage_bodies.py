"""Bodies of usage events, taken apart while they come: lines, an array of CloudEvents, or one of them."""

import codecs
import json
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple, Protocol

from ..schema.usage_lines import MAX_LINE, Unread, UsageLine, read_event, read_line


class Entry(NamedTuple):
    """One event of a body, or what is in its place."""

    line: int | None
    """Its line, from 1, where the body has lines."""
    event: UsageLine | Unread


class BodyBroken(Exception):
    """From here on nobody can tell what the body says. What came before stands."""


class Body(Protocol):
    """What takes a body apart."""

    def feed(self, part: bytes) -> Iterator[Entry]:
        """The events that are complete with this part."""
        ...

    def end(self) -> Iterator[Entry]:
        """The last one, now that nothing more comes."""
        ...


class LinesBody:
    """`application/x-ndjson`: a line each. Of a line that is too long nothing is kept but that."""

    def __init__(self) -> None:
        self._rest = b""
        self._line = 0

    def feed(self, part: bytes) -> Iterator[Entry]:
        """The events that are complete with this part."""
        *lines, rest = (self._rest + part).split(b"\n")
        self._rest = rest[: MAX_LINE + 2]
        for line in lines:
            yield from self._read(line)

    def end(self) -> Iterator[Entry]:
        """A last line need not end."""
        yield from self._read(self._rest)

    def _read(self, line: bytes) -> Iterator[Entry]:
        self._line += 1
        line = line.removesuffix(b"\r")
        if line.strip():
            yield Entry(self._line, read_line(line))


class _Awaits(Enum):
    BEGIN = auto()
    FIRST = auto()
    VALUE = auto()
    COMMA = auto()
    NOTHING = auto()


class ArrayBody:
    """`application/cloudevents-batch+json`: the values of one array, without the array in memory."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._json = json.JSONDecoder()
        self._text = ""
        self._awaits = _Awaits.BEGIN
        self._enough = 0

    def feed(self, part: bytes) -> Iterator[Entry]:
        """The events that are complete with this part."""
        yield from self._take(part, is_end=False)

    def end(self) -> Iterator[Entry]:
        """The array has to be whole."""
        yield from self._take(b"", is_end=True)
        if self._awaits is not _Awaits.NOTHING:
            raise BodyBroken("The body ends before its array does.")

    def _take(self, part: bytes, *, is_end: bool) -> Iterator[Entry]:
        try:
            self._text += self._decoder.decode(part, is_end)
        except UnicodeDecodeError as error:
            raise BodyBroken("The body is not UTF-8.") from error
        at = self._skip(0)
        while at < len(self._text):
            sign = self._text[at]
            if self._awaits in (_Awaits.FIRST, _Awaits.VALUE) and sign != "]":
                after = self._end_of_value(at, is_end=is_end)
                if after is None:
                    break
                value, end = after
                self._awaits = _Awaits.COMMA
                yield Entry(None, value)
                at = self._skip(end)
                continue
            if (sign, self._awaits) == ("[", _Awaits.BEGIN):
                self._awaits = _Awaits.FIRST
            elif (sign, self._awaits) == (",", _Awaits.COMMA):
                self._awaits = _Awaits.VALUE
            elif sign == "]" and self._awaits in (_Awaits.FIRST, _Awaits.COMMA):
                self._awaits = _Awaits.NOTHING
            else:
                raise BodyBroken("The body is not one JSON array.")
            at = self._skip(at + 1)
        self._text = self._text[at:]

    def _skip(self, at: int) -> int:
        while at < len(self._text) and self._text[at] in " \t\r\n":
            at += 1
        return at

    def _end_of_value(self, at: int, *, is_end: bool) -> tuple[UsageLine | Unread, int] | None:
        """A value and where it ends; none where more is to come."""
        left = len(self._text) - at
        if left < self._enough and not is_end:
            return None
        try:
            value, end = self._json.raw_decode(self._text, at)
        except (ValueError, RecursionError) as error:
            if is_end or left > MAX_LINE:
                raise BodyBroken("The body is not one JSON array, or an event in it is too long.") from error
            # Tried again when twice as much is there: parts of a byte each cost no more than large ones.
            self._enough = 2 * left
            return None
        if end == len(self._text) and not is_end:
            self._enough = left + 1  # the sign that ends it decides: 1 may become 12
            return None
        self._enough = 0
        if end - at > MAX_LINE:
            return Unread("", f"The event is longer than {MAX_LINE} characters."), end
        return read_event(value), end


class SingleBody:
    """`application/cloudevents+json`: one event."""

    def __init__(self) -> None:
        self._text = b""

    def feed(self, part: bytes) -> Iterator[Entry]:
        """Nothing before it is whole."""
        self._text = (self._text + part)[: MAX_LINE + 1]
        return iter(())

    def end(self) -> Iterator[Entry]:
        """The event."""
        if not self._text.strip():
            raise BodyBroken("The body is empty.")
        yield Entry(None, read_line(self._text))


BODIES: dict[str, type[LinesBody | ArrayBody | SingleBody]] = {
    "application/x-ndjson": LinesBody,
    "application/cloudevents-batch+json": ArrayBody,
    "application/cloudevents+json": SingleBody,
}
"""By content type."""
