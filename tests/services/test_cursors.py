"""Cursors: what they say comes back; what was changed, or is another list's, is refused."""

import string
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plafond.services.cursors import decode_change, decode_cursor, encode_change, encode_cursor
from plafond.services.errors import ErrorCode, RequestRefused

ORDER = "invoices"
KINDS = (datetime, UUID, int, str)
ALPHABET = string.ascii_letters + string.digits + "-_"
places = st.tuples(
    st.integers(0, 4 * 10**15).map(lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)),
    st.uuids(),
    st.integers(0, 2**53 - 1),
    st.text(max_size=30),
)
PLACE = (datetime(2026, 11, 25, 12, tzinfo=UTC), UUID(int=7), 42, "€ x")


def refuse(cursor: str, order: str = ORDER, kinds: Sequence[type] = KINDS) -> None:
    with pytest.raises(RequestRefused) as refused:
        decode_cursor(order, cursor, kinds)
    assert refused.value.code is ErrorCode.BAD_USER_INPUT


@given(place=places)
def test_a_cursor_gives_its_place_back(place: tuple[datetime, UUID, int, str]) -> None:
    cursor = encode_cursor(ORDER, place)
    assert decode_cursor(ORDER, cursor, KINDS) == place
    assert set(cursor) <= set(ALPHABET)


@given(place=places, data=st.data())
def test_a_cursor_changed_in_any_one_character_is_refused(
    place: tuple[datetime, UUID, int, str], data: st.DataObject
) -> None:
    cursor = encode_cursor(ORDER, place)
    index = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.characters().filter(lambda character: character != cursor[index]))
    refuse(cursor[:index] + other + cursor[index + 1 :])


def test_every_change_of_one_character_is_refused() -> None:
    cursor = encode_cursor(ORDER, PLACE)
    for index, character in enumerate(cursor):
        refuse(cursor[:index] + cursor[index + 1 :])
        for other in f"{ALPHABET}=+/ ":
            if other != character:
                refuse(cursor[:index] + other + cursor[index + 1 :])
            refuse(cursor[:index] + other + cursor[index:])


@pytest.mark.parametrize("add", ["=", "==", " ", "\n", "A", "AAAA", "é"])
def test_a_cursor_with_something_added_is_refused(add: str) -> None:
    cursor = encode_cursor(ORDER, PLACE)
    refuse(cursor + add)
    refuse(add + cursor)


@given(cursor=st.text(max_size=600))
def test_any_other_text_is_refused(cursor: str) -> None:
    refuse(cursor)


def test_another_lists_cursor_is_refused() -> None:
    refuse(encode_cursor("transactions", PLACE))
    refuse(encode_cursor(ORDER, PLACE[:2]))
    refuse(encode_cursor(ORDER, PLACE), kinds=(datetime, UUID))
    refuse(encode_cursor(ORDER, PLACE), kinds=(UUID, datetime, int, str))


@given(account_id=st.uuids(), sequence=st.integers(0, 2**53 - 1))
def test_a_place_in_a_stream_comes_back_for_its_own_account_only(account_id: UUID, sequence: int) -> None:
    cursor = encode_change(account_id, sequence)
    assert decode_change(account_id, cursor) == sequence
    with pytest.raises(RequestRefused) as refused:
        decode_change(uuid4(), cursor)
    assert refused.value.code is ErrorCode.BAD_USER_INPUT
