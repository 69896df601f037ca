"""What every table shares: naming of constraints, column types by annotation, id and times."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Enum, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from .types import UTC, Document, new_id

CONSTRAINTS = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(MappedAsDataclass, DeclarativeBase, kw_only=True, eq=False):
    """A row: built by keyword, compared by identity. Whole numbers are 64 bits, enums are stored by name."""

    metadata = MetaData(naming_convention=CONSTRAINTS)
    type_annotation_map = {  # noqa: RUF012
        datetime: UTC(),
        int: BigInteger(),
        str: String(),
        dict[str, Any]: Document(),
        list[Any]: Document(),
        StrEnum: Enum(StrEnum, native_enum=False, length=40),
    }


class Entity(Base, kw_only=True, eq=False):
    """A row that has an id of its own. `created_at` and `updated_at` are the clock's, given by whoever writes it."""

    __abstract__ = True

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=new_id)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime] = mapped_column(init=False)

    def __post_init__(self) -> None:
        self.updated_at = self.created_at
