"""Stripe's messages: which are proved to be its own, and what each kind of them is about."""

import hashlib
import hmac
import json
from datetime import timedelta
from typing import Any

import pytest

from plafond.adapters.stripe_messages import KINDS, MAX_HEADER_LENGTH, TOLERANCE_S, MessageRefused, StripeMessages
from plafond.services.ports import EventKind, Message

from ..conftest import NOW
from .stripe_fake import WEBHOOK_SECRET, sign

OLD_SECRET = "whsec_that_is_exchanged"


def event(kind: str = "payment_intent.succeeded", **given: Any) -> dict[str, Any]:
    subject = {"id": "pi_1", "object": "payment_intent", "metadata": {"plafond_key": "invoice:1:0"}}
    return {
        "id": "evt_1",
        "object": "event",
        "type": kind,
        "livemode": False,
        "data": {"object": subject},
        **given,
    }


def read(body: bytes, header: str | None, *secrets: str, is_live: bool = False) -> Message | None:
    return StripeMessages(secrets or [WEBHOOK_SECRET], is_live=is_live).read(body, header, NOW)


def hear(given: Any, **more: Any) -> Message | None:
    return read(*sign(json.dumps(given).encode(), NOW), **more)


BODY, HEADER = sign(json.dumps(event()).encode(), NOW)
STAMP, SIGNATURE = HEADER.split(",v1=")
OTHER_BODY = json.dumps(event(id="evt_2")).encode()


def seal(signed: bytes, secret: str = WEBHOOK_SECRET) -> str:
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


# Who may speak


def test_what_stripe_signed_is_read() -> None:
    assert read(BODY, HEADER) == Message(id="evt_1", kind=EventKind.CHARGE, subject="pi_1", key="invoice:1:0")


FORGED: dict[str, tuple[bytes, str | None]] = {
    "no signature": (BODY, None),
    "an empty signature": (BODY, ""),
    "nonsense": (BODY, "nonsense"),
    "the secret itself": (BODY, WEBHOOK_SECRET),
    "a stamp alone": (BODY, STAMP),
    "a signature alone": (BODY, f"v1={SIGNATURE}"),
    "another secret": sign(BODY, NOW, secret="whsec_of_another_endpoint"),
    "an empty secret": (BODY, f"{STAMP},v1={seal(STAMP[2:].encode() + b'.' + BODY, '')}"),
    "another body": (OTHER_BODY, HEADER),
    "a longer body": (BODY + b" ", HEADER),
    "no body": (b"", HEADER),
    "the body without its stamp": (BODY, f"{STAMP},v1={seal(BODY)}"),
    "another stamp": (BODY, f"t={int(STAMP[2:]) + 1},v1={SIGNATURE}"),
    "a stamp before the stamp": (BODY, f"t={int(STAMP[2:]) - 1},{HEADER}"),
    "a stamp of letters": (BODY, f"t=now,v1={SIGNATURE}"),
    "a negative stamp": (BODY, f"t=-1,v1={SIGNATURE}"),
    "an older scheme": (BODY, f"{STAMP},v0={SIGNATURE}"),
    "a cut signature": (BODY, HEADER[:-1]),
    "a longer signature": (BODY, HEADER + "0"),
    "an empty signature value": (BODY, f"{STAMP},v1="),
    "letters beyond ASCII": (BODY, f"{STAMP},v1={'é' * 64}"),
    "figures beyond ASCII": (BODY, f"t={'٣' * 10},v1={SIGNATURE}"),
    "a line break": (BODY, HEADER + "\n"),
    "ten thousand signatures": (BODY, STAMP + f",v1={'0' * 64}" * 10_000 + f",v1={SIGNATURE}"),
    "a right one behind too many": (BODY, STAMP + f",v1={'0' * 64}" * 20 + f",v1={SIGNATURE}"),
    "bytes that are no text": (b"\xff\xfe" + BODY, HEADER),
}


@pytest.mark.parametrize("name", FORGED)
def test_nobody_else_is_heard(name: str) -> None:
    with pytest.raises(MessageRefused):
        read(*FORGED[name])


def test_a_header_may_be_so_long() -> None:
    several = STAMP + f",v1={'0' * 64},v0={'0' * 64}" * 3 + f",v1={SIGNATURE}"
    assert len(several) < MAX_HEADER_LENGTH
    assert read(BODY, several) is not None


@pytest.mark.parametrize("skew_s", [-TOLERANCE_S, -1, 0, 1, TOLERANCE_S])
def test_clocks_may_differ(skew_s: int) -> None:
    assert read(*sign(BODY, NOW + timedelta(seconds=skew_s))) is not None


@pytest.mark.parametrize("skew_s", [-TOLERANCE_S - 1, TOLERANCE_S + 1, -86_400, 86_400, 315_360_000])
def test_old_and_future_messages_are_refused(skew_s: int) -> None:
    with pytest.raises(MessageRefused):
        read(*sign(BODY, NOW + timedelta(seconds=skew_s)))


@pytest.mark.parametrize("secret", [WEBHOOK_SECRET, OLD_SECRET])
def test_two_secrets_hold_while_one_is_exchanged(secret: str) -> None:
    assert read(*sign(BODY, NOW, secret=secret), WEBHOOK_SECRET, OLD_SECRET) is not None


def test_a_secret_that_was_exchanged_is_refused() -> None:
    with pytest.raises(MessageRefused):
        read(*sign(BODY, NOW, secret=OLD_SECRET), WEBHOOK_SECRET)


def test_the_same_message_may_be_read_twice() -> None:
    """Who hears it notes its id: the copy is told by that."""
    assert read(BODY, HEADER) == read(BODY, HEADER)


# What they say


@pytest.mark.parametrize(("kind", "about"), KINDS.items())
def test_each_kind_is_about_something(kind: str, about: EventKind) -> None:
    message = hear(event(kind, data={"object": {"id": "x_1", "metadata": {"plafond_key": "key:1"}}}))
    if kind == "charge.refunded":
        assert message is None  # it names no refund
        return
    has_key = about in (EventKind.CHARGE, EventKind.REFUND)
    assert message == Message(id="evt_1", kind=about, subject="x_1", key="key:1" if has_key else None)


def test_a_refunded_charge_of_older_versions_names_its_newest_refund() -> None:
    refunds = {"object": "list", "data": [{"id": "re_2", "metadata": {"plafond_key": "refund:2"}}, {"id": "re_1"}]}
    message = hear(event("charge.refunded", data={"object": {"id": "ch_1", "refunds": refunds}}))
    assert message == Message(id="evt_1", kind=EventKind.REFUND, subject="re_2", key="refund:2")
    assert hear(event("charge.refunded", data={"object": {"id": "ch_1", "refunds": {"data": []}}})) is None


@pytest.mark.parametrize("metadata", [None, {}, {"other": "x"}])
def test_what_others_made_has_no_key(metadata: dict[str, str] | None) -> None:
    message = hear(event(data={"object": {"id": "pi_1", "metadata": metadata}}))
    assert message == Message(id="evt_1", kind=EventKind.CHARGE, subject="pi_1")


@pytest.mark.parametrize("kind", ["charge.succeeded", "customer.created", "invoice.paid", "payment_intent", "x"])
def test_other_kinds_mean_nothing(kind: str) -> None:
    assert hear(event(kind)) is None


@pytest.mark.parametrize("is_live", [True, False])
def test_money_that_is_real_where_it_must_not_be_means_nothing(is_live: bool) -> None:
    assert hear(event(livemode=not is_live), is_live=is_live) is None
    assert hear(event(livemode=is_live), is_live=is_live) is not None


@pytest.mark.parametrize(
    "given",
    [
        None,
        1,
        "evt_1",
        [],
        [event()],
        {},
        event(id=None),
        event(id=""),
        event(id="e" * 256),
        event(id=1),
        event(type=None),
        event(livemode=None),
        event(livemode="false"),
        event(data=None),
        event(data=[]),
        event(data={}),
        event(data={"object": None}),
        event(data={"object": "pi_1"}),
        event(data={"object": {}}),
        event(data={"object": {"id": None}}),
        event(data={"object": {"id": "p" * 256}}),
        event(data={"object": {"id": "pi_1", "metadata": "x"}}),
        event(data={"object": {"id": "pi_1", "metadata": {"plafond_key": 1}}}),
        event("charge.refunded", data={"object": {"id": "ch_1", "refunds": {"data": [{}]}}}),
    ],
)
def test_what_is_no_event_is_refused(given: object) -> None:
    with pytest.raises(MessageRefused):
        hear(given)


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b'{"id":' * 10_000, b"[" * 100_000, b"\x00", "ÿ".encode()])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(MessageRefused):
        read(*sign(body, NOW))


def test_no_refusal_tells_what_was_sent() -> None:
    with pytest.raises(MessageRefused) as refused:
        hear(event(data={"object": {"id": None, "client_secret": "pi_1_secret_2"}}))
    assert "secret" not in str(refused.value) + str(refused.value.__cause__)
