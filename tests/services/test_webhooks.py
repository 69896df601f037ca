"""Webhooks out: what is planned, sent, tried again, given up, and told of."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import standardwebhooks.webhooks
from sqlalchemy import delete, func, select, update
from standardwebhooks import Webhook, WebhookVerificationError

from plafond.adapters.webhooks import HttpCourier
from plafond.database import Database
from plafond.models import (
    AuditEntry,
    DeliveryStatus,
    DisabledReason,
    EndpointStatus,
    Invoice,
    Notice,
    OutboxEvent,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
)
from plafond.schema.node import encode_id
from plafond.services import deliveries
from plafond.services.auditing import audit
from plafond.services.deliveries import (
    GIVE_UP_AFTER,
    SWITCHED_OFF_AFTER,
    UNDER_WAY,
    WAITS,
    give_up_old,
    read_retry_after,
    send_again,
    send_since,
    send_test,
    take_next,
)
from plafond.services.endpoints import EndpointFields, open_endpoint, rotate_secret, update_endpoint
from plafond.services.errors import Conflict, InvalidInput
from plafond.services.events import MAX_BYTES, describe_event, write_body
from plafond.services.ports import Answer
from plafond.services.publishing import number_outbox
from plafond.services.sending import claim_due, send_to, show_answer
from plafond.services.signing import make_secret

from ..conftest import World
from .helpers import ACTOR, OPERATOR, account_of, outbox_of
from .receiving_hooks import Post, break_off, drip, hang, happen, open_post, pour, run_receiver, status


async def deliveries_of(world: World, endpoint: WebhookEndpoint) -> list[WebhookDelivery]:
    """What goes to an endpoint, in order."""
    async with world.database.read() as session:
        return list(
            await session.scalars(
                select(WebhookDelivery)
                .where(WebhookDelivery.endpoint_id == endpoint.id)
                .order_by(WebhookDelivery.position, WebhookDelivery.created_at)
            )
        )


async def attempts_of(world: World, delivery_id: UUID) -> list[WebhookAttempt]:
    async with world.database.read() as session:
        return list(
            await session.scalars(
                select(WebhookAttempt).where(WebhookAttempt.delivery_id == delivery_id).order_by(WebhookAttempt.number)
            )
        )


async def endpoint_now(world: World, endpoint: WebhookEndpoint) -> WebhookEndpoint:
    async with world.database.read() as session:
        return await session.get_one(WebhookEndpoint, endpoint.id)


async def i10(world: World) -> list[str]:
    """What the audit finds of webhooks."""
    async with world.database.read() as session:
        found = await audit(session, world.clock.now())
    return [finding.what for finding in found if finding.invariant == "I10"]


@pytest.fixture(autouse=True)
def _receivers_clock(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receivers' library lives in the test's time."""

    class Moved(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return world.clock.now().astimezone(tz or UTC)

    monkeypatch.setattr(standardwebhooks.webhooks, "datetime", Moved)


async def test_each_event_goes_out_signed_in_order_and_as_events_has_it(world: World) -> None:
    account = await account_of(world)
    async with run_receiver() as receiver, open_post(world) as post:
        await post.plan()
        endpoint = await post.make(account.id, receiver.url)
        await happen(world, *(f"field{number}" for number in range(12)))
        await happen(world, "foreign", name="birchwood")
        await post.run()
        events = [event for event in await outbox_of(world) if (event.position or 0) > endpoint.position]
        assert receiver.ids == [encode_id("BillingEvent", event.id) for event in events]
        assert len(events) == 13, "that it was made, too"
        for message, event in zip(receiver.messages, events, strict=True):
            assert Webhook(endpoint.secret).verify(message.body, message.headers) == describe_event(event, "acme")
            assert message.headers["content-type"] == "application/json"
            assert message.headers["user-agent"].startswith("Plafond-Webhooks/")
        last = receiver.messages[-1].content
        assert last == {
            "id": receiver.ids[-1],
            "type": "account.updated",
            "version": 1,
            "accountId": encode_id("BillingAccount", account.id),
            "externalId": "acme",
            "timestamp": last["timestamp"],
            "data": {"changed": ["field11"]},
        }
        with pytest.raises(WebhookVerificationError):
            Webhook(make_secret()).verify(receiver.messages[0].body, receiver.messages[0].headers)
    log = await deliveries_of(world, endpoint)
    assert {row.status for row in log} == {DeliveryStatus.SUCCEEDED}
    [attempt] = await attempts_of(world, log[0].id)
    assert (attempt.status_code, attempt.answer, attempt.failure) == (200, "thanks", None)
    assert await i10(world) == []


async def test_a_receiver_that_fails_for_two_hours_gets_each_event_once_by_its_id(world: World) -> None:
    """Hard case 31: one id and the same bytes over all tries, a fresh signature for each."""
    account = await account_of(world)
    async with run_receiver() as receiver, open_post(world) as post:
        endpoint = await post.make(account.id, receiver.url, event_types=["account.updated"])
        await post.run()
        receiver.messages.clear()
        await happen(world, "one", "two", "three")
        receiver.answering = status(500, "down")
        ends = world.clock.now() + timedelta(hours=2)
        while world.clock.now() < ends:
            await post.run()
            world.clock.stands_at += timedelta(seconds=30)
        failed = list(receiver.messages)
        receiver.answering = status(204)
        while any(row.status is DeliveryStatus.PENDING for row in await deliveries_of(world, endpoint)):
            world.clock.stands_at += timedelta(seconds=30)
            before = len(receiver.messages)
            await post.run()
            for message in receiver.messages[before:]:
                assert Webhook(endpoint.secret).verify(message.body, message.headers)
    delivered = receiver.messages[len(failed) :]
    wanted = [row.event_id for row in await deliveries_of(world, endpoint)][-3:]
    # One finds out that it is back, and then all that waits goes out.
    assert sorted(message.id for message in delivered) == sorted(encode_id("BillingEvent", id_) for id_ in wanted)
    first = [message for message in receiver.messages if message.id == delivered[0].id]
    assert 4 <= len(first) <= 8, "it backs off"
    assert len({message.body for message in first}) == 1
    stamps = [message.headers["webhook-timestamp"] for message in first]
    assert len(set(stamps)) == len(stamps) == len({message.headers["webhook-signature"] for message in first})
    [named] = [
        row
        for row in await deliveries_of(world, endpoint)
        if encode_id("BillingEvent", row.event_id) == delivered[0].id
    ]
    log = await attempts_of(world, named.id)
    assert [row.status_code for row in log] == [500] * (len(first) - 1) + [204]
    assert log[0].answer == "down"
    assert log[0].failure == "It answered 500, and only 2xx is a success."
    now = await endpoint_now(world, endpoint)
    assert (now.failures, now.failing_since, now.rests_until) == (0, None, None)
    assert await i10(world) == []


async def test_it_is_given_up_after_three_days_and_switched_off_after_five(world: World) -> None:
    account = await account_of(world)
    async with run_receiver() as receiver, open_post(world) as post:
        endpoint = await post.make(account.id, receiver.url, event_types=["account.updated"])
        await post.run()
        receiver.answering = status(503)
        await happen(world, "lost")
        began = world.clock.now()
        while world.clock.now() - began < SWITCHED_OFF_AFTER - timedelta(hours=1):
            await post.run()
            await give_up_old(world.database, ACTOR)
            world.clock.stands_at += timedelta(hours=1)
        lost = (await deliveries_of(world, endpoint))[-1]
        assert lost.status is DeliveryStatus.FAILED
        log = await attempts_of(world, lost.id)
        assert len(WAITS) - 2 <= len(log) <= len(WAITS) + 1, "first at once, last when its time is over"
        assert log[-1].at - log[0].at >= GIVE_UP_AFTER - timedelta(hours=1)
        assert (await endpoint_now(world, endpoint)).status is EndpointStatus.ENABLED
        await happen(world, "last")
        while (await endpoint_now(world, endpoint)).status is EndpointStatus.ENABLED:
            world.clock.stands_at += timedelta(hours=1)
            await post.run()
            assert world.clock.now() - began < SWITCHED_OFF_AFTER + timedelta(days=1)
        assert await i10(world) == []
    await check_switched_off(world, endpoint, DisabledReason.FAILING)


async def check_switched_off(world: World, endpoint: WebhookEndpoint, reason: DisabledReason) -> None:
    """It is told by a notice, an event, and the audit log."""
    now = await endpoint_now(world, endpoint)
    assert (now.status, now.disabled_reason) == (EndpointStatus.DISABLED, reason)
    async with world.database.read() as session:
        [notice] = await session.scalars(select(Notice).where(Notice.code == "WEBHOOK_DISABLED"))
        [event] = await session.scalars(select(OutboxEvent).where(OutboxEvent.kind == "webhook.disabled"))
        [entry] = await session.scalars(select(AuditEntry).where(AuditEntry.action == "webhook_endpoint.disabled"))
        assert [what.what for what in await audit(session, world.clock.now()) if what.invariant == "I13"] == []
    assert notice.params == {"url": endpoint.url, "reason": reason}
    assert event.payload == {"endpointId": str(endpoint.id), "url": endpoint.url, "reason": reason}
    assert entry.object == f"webhook_endpoint:{endpoint.id}"


async def test_410_switches_off_at_once_and_switching_on_goes_on_from_there(world: World) -> None:
    account = await account_of(world)
    async with run_receiver() as receiver, open_post(world) as post:
        endpoint = await post.make(account.id, receiver.url, event_types=["account.updated"])
        await post.run()
        receiver.answering = status(410, "gone")
        await happen(world, "one", "two")
        await post.run()
        await check_switched_off(world, endpoint, DisabledReason.GONE)
        first, second = (await deliveries_of(world, endpoint))[-2:]
        assert (first.status, second.status) == (DeliveryStatus.FAILED, DeliveryStatus.PENDING)
        await happen(world, "missed")
        world.clock.stands_at += timedelta(hours=1)
        await post.run()
        assert len(await deliveries_of(world, endpoint)) == 3
        receiver.answering = status(200)
        receiver.messages.clear()

        async def on(work: Any) -> None:
            await update_endpoint(work, OPERATOR, endpoint, EndpointFields(status=EndpointStatus.ENABLED), post.rules)

        await world.database.run(ACTOR, on)
        await happen(world, "heard")
        await post.run()
        told = [message.content["data"]["changed"] for message in receiver.messages]
        assert (told[0], told[-1]) == (["two"], ["heard"])
        assert ["missed"] not in told
        async with world.database.read() as session:
            assert (await session.scalars(select(Notice).where(Notice.code == "WEBHOOK_DISABLED"))).all() == []
        # What it missed is sent by hand, and what failed too, under the same ids.
        receiver.messages.clear()

        async def fill(work: Any) -> deliveries.Replayed:
            opened = await open_endpoint(work, OPERATOR, endpoint, "replayed")
            return await send_since(work, opened, first.position - 1)

        replayed = await world.database.run(ACTOR, fill)
        assert replayed.next_position is None
        await post.run()
        told = [message.content["data"]["changed"] for message in receiver.messages]
        assert ["one"] in told
        assert ["missed"] in told
        assert ["two"] not in told
        assert len(told) == replayed.count
        assert await i10(world) == []


async def test_a_receiver_that_wants_time_is_given_it(world: World) -> None:
    account = await account_of(world)
    async with run_receiver() as receiver, open_post(world) as post:
        await post.make(account.id, receiver.url, event_types=["account.updated"])
        await post.run()
        receiver.messages.clear()
        receiver.answering = status(429, Retry_After="1800")
        await happen(world, "one", "two")
        await post.run()
        assert len(receiver.messages) == 1
        for _ in range(5):
            world.clock.stands_at += timedelta(minutes=5)
            await post.run()
        assert len(receiver.messages) == 1, "nothing else is tried there either"
        receiver.answering = status(200)
        world.clock.stands_at += timedelta(minutes=12)
        await post.run()
        assert sorted(receiver.ids[1:]) == sorted(set(receiver.ids))


async def test_how_long_a_receiver_may_ask_for() -> None:
    now = datetime(2026, 11, 25, 12, tzinfo=UTC)
    assert read_retry_after("120", now) == timedelta(minutes=2)
    assert read_retry_after("Wed, 25 Nov 2026 12:10:00 GMT", now) == timedelta(minutes=10)
    assert read_retry_after("Wed, 25 Nov 2020 12:10:00 GMT", now) == timedelta()
    assert read_retry_after("9" * 5_000, now) == timedelta(hours=6)
    for nothing in (None, "", "soon", "-5", "1.5", "١٢", "Wed, 99 Nov 2026 12:10:00 GMT"):
        assert read_retry_after(nothing, now) is None


@pytest.mark.parametrize("answering", [hang, drip])
async def test_a_receiver_that_hangs_delays_no_other(world: World, answering: Any) -> None:
    account = await account_of(world)
    async with run_receiver() as slow, run_receiver() as quick, open_post(world, total_s=1.0) as post:
        slow.answering = answering
        hanging = await post.make(account.id, slow.url)
        await post.make(account.id, quick.url)
        await happen(world, "one", "two", "three")
        await post.plan()
        began = time.monotonic()
        sending = asyncio.create_task(post.send())
        while len(quick.messages) < 5:
            await asyncio.sleep(0.005)
            assert time.monotonic() - began < 0.9, "it waited for the slow one"
        await sending
        assert len(slow.messages) == 1, "after a failure it rests"
        assert time.monotonic() - began < 3
    [attempt] = await attempts_of(world, (await deliveries_of(world, hanging))[0].id)
    assert attempt.failure == "It did not answer within 1 seconds."
    assert attempt.status_code is None


async def test_an_answer_without_end_is_cut_and_shown_as_text(world: World) -> None:
    account = await account_of(world)
    async with run_receiver() as receiver, open_post(world) as post:
        receiver.answering = pour
        endpoint = await post.make(account.id, receiver.url)
        await happen(world, "one")
        await post.run()
    [attempt] = await attempts_of(world, (await deliveries_of(world, endpoint))[0].id)
    assert attempt.answer == "y" * 1_000
    assert attempt.status_code == 200
    assert show_answer(Answer(500, b"<b>\x00\x1b[31m\xff\xe2\x80\xae line\r\nnext</b>")) == (
        "<b>  [31m\ufffd  line \nnext</b>"
    )


async def test_redirects_are_failures_and_lead_nowhere(world: World) -> None:
    account = await account_of(world)
    async with run_receiver() as inside, run_receiver() as receiver, open_post(world) as post:
        for code in (301, 302, 303, 307, 308):
            receiver.answering = status(code, Location=inside.url)
            endpoint = await post.make(account.id, receiver.url)
            await happen(world, "one")
            await post.run()
            [attempt, *_] = await attempts_of(world, (await deliveries_of(world, endpoint))[0].id)
            assert attempt.failure == (
                f"It answered {code}: redirects are not followed. Give the endpoint the URL that it leads to."
            )
        assert inside.messages == []


async def test_a_connection_that_breaks_is_told(world: World) -> None:
    account = await account_of(world)
    async with run_receiver() as receiver, open_post(world) as post:
        receiver.answering = break_off
        broken = await post.make(account.id, receiver.url)
        refusing = await post.make(account.id, "http://127.0.0.1:1/x")
        await happen(world, "one")
        await post.run()
    for endpoint in (broken, refusing):
        [attempt] = await attempts_of(world, (await deliveries_of(world, endpoint))[0].id)
        assert (attempt.failure or "").startswith("The connection failed: ")


async def test_while_a_secret_is_exchanged_both_prove_a_message(world: World) -> None:
    account = await account_of(world)
    new = make_secret()
    async with run_receiver() as receiver, open_post(world) as post:
        endpoint = await post.make(account.id, receiver.url)
        old = endpoint.secret

        async def rotate(work: Any) -> None:
            await rotate_secret(work, OPERATOR, endpoint, new, 2)

        await world.database.run(ACTOR, rotate)
        await post.run()
        for secret in (old, new):
            for message in receiver.messages:
                Webhook(secret).verify(message.body, message.headers)
        world.clock.stands_at += timedelta(hours=2)
        receiver.messages.clear()
        await happen(world, "later")
        await post.run()
        [message] = receiver.messages
        Webhook(new).verify(message.body, message.headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(old).verify(message.body, message.headers)
    assert old not in repr(endpoint)


class Counting(HttpCourier):
    """Knows how many messages are under way to each URL at once."""

    def __init__(self) -> None:
        super().__init__(allow_inside=True)
        self.under_way = 0
        self.most = 0

    async def post(self, url: str, headers: Any, body: bytes) -> Answer:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0.005)
            return await super().post(url, headers, body)
        finally:
            self.under_way -= 1


async def test_two_workers_at_once_send_each_delivery_once_and_in_order(world: World) -> None:
    account = await account_of(world)
    counting = Counting()
    async with run_receiver() as receiver, open_post(world, counting) as post:
        await post.make(account.id, receiver.url)
        await happen(world, *(f"field{number}" for number in range(30)))
        await post.plan()
        second = Database(world.settings.database_url, world.clock, lambda _: None)
        try:
            other = Post(second, post.hooks)
            await asyncio.gather(post.send(), other.send(), other.plan(), post.plan())
            await post.send()
        finally:
            await second.close()
        events = [event for event in await outbox_of(world) if event.position][-31:]
        assert receiver.ids == [encode_id("BillingEvent", event.id) for event in events]
    assert counting.most == 1
    await counting.close()


async def test_who_lost_the_lease_writes_nothing_more(world: World) -> None:
    account = await account_of(world)
    async with run_receiver() as receiver, open_post(world) as post:
        endpoint = await post.make(account.id, receiver.url)
        await post.plan()
        [stale] = await claim_due(world.database, ACTOR, 5)
        assert not await claim_due(world.database, ACTOR, 5)
        async with world.database.work(ACTOR) as work:
            begun = await take_next(work, stale, None)
        assert begun is not None
        [delivery] = await deliveries_of(world, endpoint)
        [attempt] = await attempts_of(world, delivery.id)
        assert attempt.failure == UNDER_WAY
        world.clock.stands_at += deliveries.LEASE
        await post.send()
        assert len(receiver.messages) == 1
        assert await send_to(world.database, ACTOR, post.hooks, stale) == 0
        assert len(receiver.messages) == 1
        [delivery] = await deliveries_of(world, endpoint)
        assert (delivery.status, delivery.tries) == (DeliveryStatus.SUCCEEDED, 2)
        assert [row.status_code for row in await attempts_of(world, delivery.id)] == [None, 200]


async def test_what_succeeded_is_sent_again_with_the_same_bytes(world: World) -> None:
    account = await account_of(world)
    async with run_receiver() as receiver, open_post(world) as post:
        endpoint = await post.make(account.id, receiver.url)
        await post.run()
        [delivery] = await deliveries_of(world, endpoint)

        async def again(work: Any) -> None:
            await send_again(work, await open_endpoint(work, OPERATOR, endpoint, "replayed"), delivery.id)

        await world.database.run(ACTOR, again)
        await post.run()
        first, second = receiver.messages
        assert (first.id, first.body) == (second.id, second.body)
        async with world.database.work(ACTOR) as work:
            await work.session.execute(update(WebhookDelivery).values(tries=deliveries.MAX_TRIES))
        with pytest.raises(Conflict, match="tried 100 times"):
            await world.database.run(ACTOR, again)


async def test_a_test_goes_the_way_of_all_others(world: World) -> None:
    account = await account_of(world)
    async with run_receiver() as receiver, open_post(world) as post:
        for account_id in (account.id, None):
            endpoint = await post.make(account_id, receiver.url, event_types=["invoice.paid"])
            receiver.messages.clear()

            async def test(work: Any, endpoint: WebhookEndpoint = endpoint) -> WebhookDelivery:
                return await send_test(work, await open_endpoint(work, OPERATOR, endpoint, "tested"))

            delivery = await world.database.run(ACTOR, test)
            await post.run()
            [message] = receiver.messages
            content = Webhook(endpoint.secret).verify(message.body, message.headers)
            assert content["type"] == "webhook.test"
            assert content["id"] == encode_id("BillingEvent", delivery.event_id)
            assert content["externalId"] == (None if account_id is None else "acme")


async def test_operators_hear_of_all_accounts_and_tenants_not_of_what_is_for_operators(world: World) -> None:
    account = await account_of(world)
    async with run_receiver() as own, run_receiver() as all_, open_post(world) as post:
        await post.make(account.id, own.url)
        operators = await post.make(None, all_.url, event_types=["account.updated"])
        await post.run()
        own.messages.clear()
        all_.messages.clear()
        async with world.database.work(ACTOR) as work:
            locked = (await work.lock_accounts([account.id]))[account.id]
            hidden = {"accountId": str(account.id), "changed": ["notices"], "forOperators": True}
            work.emit(locked, "account.updated", hidden)
        await happen(world, "foreign", name="birchwood")
        await happen(world, "own")
        await post.run()
        assert [message.content["data"] for message in own.messages] == [{"changed": ["own"]}]
        assert sorted(message.content["externalId"] for message in all_.messages) == ["acme", "acme", "birchwood"]
        receiver_410 = status(410)
        all_.answering = receiver_410
        await happen(world, "one")
        await post.run()
        assert (await endpoint_now(world, operators)).disabled_reason is DisabledReason.GONE
        async with world.database.read() as session:
            [entry] = await session.scalars(select(AuditEntry).where(AuditEntry.action == "webhook_endpoint.disabled"))
        assert entry.account_id is None
        assert await i10(world) == []


QUERY = """query($accountId: ID!, $subjectId: ID!) {
  billingAccount(id: $accountId) { externalId }
  node(id: $subjectId) { ... on Invoice { number total { amount } } } }"""
ASKS = """query($accountId: ID!, $eventId: ID!) {
  billingAccount(id: $accountId) { externalId invoices(first: 1) { nodes { number } } }
  event: node(id: $eventId) { ... on BillingEvent { type } }
  other: billingAccount(externalId: "birchwood") { name }
  viewer { kind scopes accounts { account { externalId } role } } }"""


async def test_a_query_s_answer_is_the_payload_with_the_endpoint_s_rights(world: World) -> None:
    account = await account_of(world)
    async with run_receiver() as own, run_receiver() as all_, open_post(world) as post:
        with pytest.raises(InvalidInput, match="Cannot query"):
            await post.make(account.id, own.url, query=QUERY.replace("number", "nothing"))
        endpoint = await post.make(account.id, own.url, query=ASKS)
        await post.make(None, all_.url, query=ASKS)
        await happen(world, "one")
        await post.run()
        content = own.messages[-1].content
        assert content["type"] == "account.updated"
        assert content["data"]["billingAccount"]["externalId"] == "acme"
        assert content["data"]["billingAccount"]["invoices"]["nodes"][0]["number"].startswith("INV-")
        assert content["data"]["event"] == {"type": "account.updated"}
        assert content["data"]["other"] is None, "it reads its own account, and no other"
        assert content["data"]["viewer"]["scopes"] == ["billing:read"]
        assert all_.messages[-1].content["data"]["other"] is None
        # What an event is about is the invoice, where it is about one.
        about = await post.make(account.id, own.url, query=QUERY, event_types=["invoice.paid"])
        async with world.database.work(ACTOR) as work:
            invoice = (await work.session.scalars(select(Invoice).where(Invoice.account_id == account.id))).first()
            assert invoice is not None
            locked = (await work.lock_accounts([account.id]))[account.id]
            work.emit(locked, "invoice.paid", {"invoiceId": str(invoice.id), "number": invoice.number})
        await post.run()
        [paid] = await deliveries_of(world, about)
        assert json.loads(paid.body or "")["data"]["node"]["number"] == invoice.number
        assert all_.messages[-1].content["data"]["billingAccount"]["externalId"] == "acme"
        # The body is made once.
        row = (await deliveries_of(world, endpoint))[-1]
        assert row.body == own.messages[-1].body.decode()


async def test_a_query_that_fails_sends_its_errors_and_one_too_large_the_event(world: World) -> None:
    account = await account_of(world)
    refused = "query($accountId: ID!) { billingAccount(id: $accountId) { id } taxTable { country } }"
    aliases = " ".join(f"a{number}: billingAccount(id: $accountId) {{ ...F }}" for number in range(60))
    many = (
        f"query($accountId: ID!) {{ {aliases} }} fragment F on BillingAccount {{ usage {{ id metric {{ id name }} }} }}"
    )
    async with run_receiver() as failing, run_receiver() as large, open_post(world) as post:
        await post.make(account.id, failing.url, query=refused)
        await post.make(account.id, large.url, query=many)
        await happen(world, "one")
        await post.run()
        content = failing.messages[-1].content
        assert content["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        assert content["data"] is None
        for message in large.messages:
            assert len(message.body) <= MAX_BYTES
            assert message.content["truncated"] is True
        assert large.messages[-1].content["data"] == {"changed": ["one"]}


DEEP_LISTS = "{ a(first: 100) { nodes { b(first: 100) { nodes { c(first: 100) { nodes { id } } } } } } }"


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("{", "This is no GraphQL document"),
        ("mutation { __typename }", "The document holds one query"),
        ("subscription { __typename }", "The document holds one query"),
        ("{ a: __typename } query b { __typename }", "The document holds one query"),
        ("type A { b: Int }", "The document holds one query"),
        ("query($id: ID!) { node(id: $id) { id } }", "`$id: ID!` is not given to the query: it may declare $accountId"),
        (
            "query($subjectId: [ID!]!) { nodes(ids: $subjectId) { id } }",
            "`$subjectId: [ID!]!` is not given to the query",
        ),
        ("query($eventId: String!) { __typename }", "`$eventId: String!` is not given"),
        ("{ nothing }", "Cannot query field 'nothing' on type 'Query'."),
        ("{ billingAccount { " + "nextBilling { " * 20 + "at" + " }" * 22, "nested more than 16 deep"),
        ("{" + " a: __typename" * 1_200 + " }", ""),
        ("{ " + " ".join(f"a{n}: __typename" for n in range(990)) + " }", "at most 10,000 characters"),
        (
            DEEP_LISTS,
            "could hold more than 100000 fields",
        ),
    ],
)
async def test_what_is_no_query_of_a_payload_is_refused(world: World, query: str, told: str) -> None:
    account = await account_of(world)
    async with open_post(world) as post:
        with pytest.raises(InvalidInput) as refused:
            await post.make(account.id, "https://hooks.example.com/", query=query)
    assert told in str(refused.value)


async def test_a_large_event_is_cut_to_its_ids() -> None:
    event = OutboxEvent(
        account_id=UUID(int=1),
        sequence=1,
        kind="usage.alert_raised",
        payload={"alertId": str(UUID(int=2)), "causes": ["x" * 300] * 100},
        at=datetime(2026, 11, 25, tzinfo=UTC),
    )
    body = describe_event(event, "acme")
    assert body["data"] == {"alertId": encode_id("Alert", UUID(int=2))}
    assert body["truncated"] is True
    assert len(write_body(body).encode()) < MAX_BYTES


async def test_planning_takes_a_constant_number_of_statements_and_loses_nothing(world: World) -> None:
    account = await account_of(world)
    async with open_post(world) as post:
        await post.make(account.id, "https://hooks.example.com/a")
        await post.plan()
        counts = []
        for number in (1, 40):
            await happen(world, *(f"f{index}" for index in range(number)))
            async with world.database.work(ACTOR) as work:
                await number_outbox(work)
            world.statements.clear()
            async with world.database.work(ACTOR) as work:
                assert await deliveries.plan_deliveries(work) == number
            counts.append(len(world.statements))
        assert counts[0] == counts[1] <= 6, counts
        assert await i10(world) == []
        async with world.database.work(ACTOR) as work:
            last = (await work.session.scalars(select(func.max(WebhookDelivery.position)))).one()
            await work.session.execute(delete(WebhookDelivery).where(WebhookDelivery.position == last))
        [told] = await i10(world)
        assert "was never planned for" in told


async def test_what_waits_beyond_its_time_is_found_and_given_up(world: World) -> None:
    account = await account_of(world)
    async with open_post(world) as post:
        endpoint = await post.make(account.id, "https://hooks.example.com/a")
        await post.plan()
        world.clock.stands_at += GIVE_UP_AFTER + timedelta(days=1, minutes=1)
        [told] = await i10(world)
        assert "was to be given up at" in told
        assert await give_up_old(world.database, ACTOR) == 1
        assert await give_up_old(world.database, ACTOR) == 0
        assert await i10(world) == []
        [row] = await deliveries_of(world, endpoint)
        assert row.status is DeliveryStatus.FAILED
        async with world.database.work(ACTOR) as work:
            await work.session.execute(update(WebhookDelivery).values(status=DeliveryStatus.SUCCEEDED))
        [told] = await i10(world)
        assert "no try of it succeeded" in told
