"""Cursors: opaque, versioned, bound to the order of one list. A changed one is refused, never guessed at."""

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from .errors import ErrorCode, RequestRefused

VERSION = 1
CHECK_LENGTH = 8
MAX_LENGTH = 512


def encode_cursor(order: str, place: Sequence[object]) -> str:
    """The place in a list, as text. `order` names the list and its order."""
    values = [value.isoformat() if isinstance(value, datetime) else _plain(value) for value in place]
    text = json.dumps([VERSION, *values], separators=(",", ":"))
    return urlsafe_b64encode(_check(order, text) + text.encode()).decode().rstrip("=")


def decode_cursor(order: str, cursor: str, kinds: Sequence[type]) -> tuple[Any, ...]:
    """The place that a cursor of this very list names. `BAD_USER_INPUT` for any other text."""
    try:
        if len(cursor) > MAX_LENGTH:
            raise ValueError("longer than any cursor")
        raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        text = raw[CHECK_LENGTH:].decode()
        version, *values = json.loads(text)
        if raw[:CHECK_LENGTH] != _check(order, text) or version != VERSION or cursor != encode_cursor(order, values):
            raise ValueError("not one of this list's")
        return tuple(_read(value, kind) for value, kind in zip(values, kinds, strict=True))
    except (ValueError, TypeError, RecursionError) as error:
        raise RequestRefused(
            ErrorCode.BAD_USER_INPUT,
            "The cursor is of another list or account, or was changed: take one from an earlier answer to the same.",
        ) from error


def _plain(value: object) -> object:
    return value.hex if isinstance(value, UUID) else value


def _read(value: Any, kind: type) -> Any:
    if kind is datetime:
        return datetime.fromisoformat(value)
    if kind is UUID:
        return UUID(value)
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind}")
    return value


def _check(order: str, text: str) -> bytes:
    return hashlib.blake2s(f"{order}\n{text}".encode(), digest_size=CHECK_LENGTH).digest()


def encode_change(account_id: UUID, sequence: int) -> str:
    """The place in an account's stream of changes."""
    return encode_cursor(f"changes:{account_id}", [sequence])


def decode_change(account_id: UUID, cursor: str) -> int:
    """The sequence number that a stream's cursor names. `BAD_USER_INPUT` for another account's or a changed one."""
    return int(decode_cursor(f"changes:{account_id}", cursor, [int])[0])
