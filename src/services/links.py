"""Links that open one document or export for a short while: whoever holds one needs no token."""

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from struct import Struct
from uuid import UUID

LINK_LIFE = timedelta(minutes=15)
FOLDER = "/documents/"

_VERSION = 1
_CONTENT = Struct(">BB16s16s6s")
"""Version, form, document, account, and the second at which it ends."""
_CONTEXT = b"plafond document link"
# A whole number of base64's groups of three bytes: each link has one spelling only.
_TOKEN = re.compile(rf"[A-Za-z0-9_-]{{{(_CONTENT.size + hashlib.sha256().digest_size) // 3 * 4}}}")


class LinkForm(IntEnum):
    """What a link gives of a document."""

    PDF = 1
    XML = 2
    EXPORT = 3
    """The file of an export, whose id stands in the document's place."""


@dataclass(frozen=True)
class Link:
    """An absolute link, and until when it works."""

    url: str
    expires_at: datetime


@dataclass(frozen=True)
class OpenedLink:
    """What a valid link is for."""

    document_id: UUID
    account_id: UUID
    form: LinkForm


def sign_link(
    key: bytes, document_id: UUID, account_id: UUID, expires_at: datetime, form: LinkForm = LinkForm.PDF
) -> str:
    """The path that opens a document until an instant."""
    seconds = int(expires_at.timestamp()).to_bytes(6)
    content = _CONTENT.pack(_VERSION, form, document_id.bytes, account_id.bytes, seconds)
    return FOLDER + urlsafe_b64encode(content + _seal(key, content)).decode()


def open_link(key: bytes, token: str, now: datetime) -> OpenedLink | None:
    """What the last part of a link's path is for; none, without a reason, for what we did not sign or is over."""
    if not _TOKEN.fullmatch(token):
        return None
    decoded = urlsafe_b64decode(token)
    content, seal = decoded[: _CONTENT.size], decoded[_CONTENT.size :]
    if not hmac.compare_digest(seal, _seal(key, content)):
        return None
    version, form, document, account, seconds = _CONTENT.unpack(content)
    if version != _VERSION or now.timestamp() >= int.from_bytes(seconds):
        return None
    return OpenedLink(UUID(bytes=document), UUID(bytes=account), LinkForm(form))


def _seal(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, _CONTEXT + content, "sha256")
