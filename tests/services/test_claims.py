"""Claims: what we signed is read back for its own purpose and time, and nothing else is."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from plafond.services.claims import Claim, Purpose, read_claim, sign_claim

KEY = b"k" * 32
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
CLAIM = Claim(UUID(int=7), 3)


def test_a_claim_is_read_back_until_it_ends() -> None:
    text = sign_claim(KEY, Purpose.INVITATION, CLAIM, NOW + timedelta(days=7))
    assert read_claim(KEY, Purpose.INVITATION, text, NOW) == CLAIM
    assert read_claim(KEY, Purpose.INVITATION, text, NOW + timedelta(days=7, seconds=-1)) == CLAIM
    assert read_claim(KEY, Purpose.INVITATION, text, NOW + timedelta(days=7)) is None


def test_a_claim_without_an_end_stays_good() -> None:
    text = sign_claim(KEY, Purpose.UNSUBSCRIBE, CLAIM)
    assert read_claim(KEY, Purpose.UNSUBSCRIBE, text, NOW + timedelta(days=10_000)) == CLAIM


def test_a_claim_is_for_one_purpose_and_one_key() -> None:
    text = sign_claim(KEY, Purpose.INVITATION, CLAIM)
    assert read_claim(KEY, Purpose.UNSUBSCRIBE, text, NOW) is None
    assert read_claim(b"x" * 32, Purpose.INVITATION, text, NOW) is None


@pytest.mark.parametrize("place", [0, 5, 20, 40, -1])
def test_a_changed_claim_is_none(place: int) -> None:
    text = sign_claim(KEY, Purpose.INVITATION, CLAIM)
    at = place % len(text)
    other = "A" if text[at] != "A" else "B"
    assert read_claim(KEY, Purpose.INVITATION, text[:at] + other + text[at + 1 :], NOW) is None


@pytest.mark.parametrize("text", ["", "x", "é" * 84, "A" * 84, "A" * 10_000, "=" * 84])
def test_what_is_no_claim_is_none(text: str) -> None:
    assert read_claim(KEY, Purpose.INVITATION, text, NOW) is None
