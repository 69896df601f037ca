"""Claims: short texts that we signed, so that whoever brings one back proves that it came from us.

They stand in links that go out by mail. A claim is for one purpose: an invitation's opens nothing else.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from struct import Struct
from uuid import UUID


class Purpose(IntEnum):
    """What a claim is good for."""

    INVITATION = 1
    UNSUBSCRIBE = 2


@dataclass(frozen=True)
class Claim:
    """What a valid claim says: about what, and which of those made for it (a later one may have ended it)."""

    subject_id: UUID
    number: int


_VERSION = 1
_CONTENT = Struct(">BB16sIQ")
"""Version, purpose, subject, number, and the second at which it ends (0: it does not)."""
_CONTEXT = b"plafond claim"
# Padded to whole groups of base64, so that each claim has one spelling only.
_TOKEN = re.compile(rf"[A-Za-z0-9_-]{{{-(-(_CONTENT.size + hashlib.sha256().digest_size) // 3) * 4}}}")
_PADDING = b"\0" * (-(_CONTENT.size + hashlib.sha256().digest_size) % 3)


def sign_claim(key: bytes, purpose: Purpose, claim: Claim, expires_at: datetime | None = None) -> str:
    """A claim as text for a link; without `expires_at` it is good for ever."""
    seconds = 0 if expires_at is None else int(expires_at.timestamp())
    content = _CONTENT.pack(_VERSION, purpose, claim.subject_id.bytes, claim.number, seconds)
    return urlsafe_b64encode(content + _seal(key, content) + _PADDING).decode()


def read_claim(key: bytes, purpose: Purpose, text: str, now: datetime) -> Claim | None:
    """What a text claims; none, without a reason, for what we did not sign, for another purpose, or is over."""
    if not _TOKEN.fullmatch(text):
        return None
    decoded = urlsafe_b64decode(text)
    content, rest = decoded[: _CONTENT.size], decoded[_CONTENT.size :]
    if not hmac.compare_digest(rest, _seal(key, content) + _PADDING):
        return None
    version, for_what, subject, number, seconds = _CONTENT.unpack(content)
    if version != _VERSION or for_what != purpose or (seconds and now.timestamp() >= seconds):
        return None
    return Claim(UUID(bytes=subject), number)


def _seal(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, _CONTEXT + content, "sha256")
