"""Column types that behave alike on SQLite and PostgreSQL, and the ids."""

import secrets
import time
from datetime import UTC as UTC_ZONE
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, DateTime, Dialect
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator, TypeEngine


class UTC(TypeDecorator[datetime]):
    """An instant. A naive datetime is refused; what is read is in UTC (SQLite forgets the zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @property
    def python_type(self) -> type[datetime]:
        """What a decorated type does not say by itself."""
        return datetime

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.astimezone(UTC_ZONE)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC_ZONE) if value.tzinfo is None else value.astimezone(UTC_ZONE)


class Document(TypeDecorator[Any]):
    """JSON: JSONB on PostgreSQL, text elsewhere."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(JSONB() if dialect.name == "postgresql" else JSON())


_CHANCE_BITS = 74
_last = 0
"""The last id that this process made, as time and chance."""


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562, §6.2 method 2): 48 bits of milliseconds, then chance. Ids that a process makes rise.

    So rows of one table are in order of time, and those of one batch in that of the batch.
    """
    global _last  # noqa: PLW0603  # one sequence per process is the point
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << _CHANCE_BITS | secrets.randbits(_CHANCE_BITS)
    if value <= _last or milliseconds == _last >> _CHANCE_BITS:
        value = _last + 1 + secrets.randbits(40)
    _last = value
    high, low = divmod(value, 1 << 62)
    return UUID(int=(high >> 12) << 80 | 0x7 << 76 | (high & 0xFFF) << 64 | 0x2 << 62 | low)


def first_id_at(instant: datetime) -> UUID:
    """Below every id made at an instant or later, and above every one made before."""
    return UUID(int=int(instant.timestamp() * 1_000) << 80)
