"""Global ids, and the interface of everything that has one."""

from base64 import urlsafe_b64decode
from typing import NamedTuple
from uuid import UUID

import strawberry

from ..services.global_ids import encode_global_id
from .fields import said

MAX_ID_LENGTH = 256
NOBODY = UUID(int=0)
"""No object has this key: what an id that names nothing of its type stands for."""


class GlobalId(NamedTuple):
    """What an id names: a type, and its key."""

    type_name: str
    key: str

    def uuid(self) -> UUID | None:
        """The key as a UUID; none where it is not one in its plain form."""
        try:
            found = UUID(self.key)
        except ValueError:
            return None
        return found if str(found) == self.key else None


def encode_id(type_name: str, *key: object) -> strawberry.ID:
    """The opaque id of an object."""
    return strawberry.ID(encode_global_id(type_name, *key))


def decode_id(value: str) -> GlobalId | None:
    """What an id names; none for what was never one of ours."""
    if not value or len(value) > MAX_ID_LENGTH:
        return None
    try:
        text = urlsafe_b64decode(value.encode("ascii") + b"=" * (-len(value) % 4)).decode()
    except ValueError:
        return None
    type_name, _, key = text.partition(":")
    return GlobalId(type_name, key) if key and key.isprintable() and encode_id(type_name, key) == value else None


def key_of(value: str, type_name: str) -> UUID | None:
    """The key in an id of a type; none where it is something else."""
    found = decode_id(value)
    return found.uuid() if found is not None and found.type_name == type_name else None


@strawberry.interface(description="Whatever has an id that `node(id:)` finds again.")
class Node:
    """An object with a global id."""

    id: strawberry.ID = said("Opaque, and the same for ever. `node(id:)` finds the object again.")
