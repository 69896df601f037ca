"""Receipts: what each says of the money that moved, frozen as it did, and kept as long as the invoice's years."""

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from plafond.models import (
    BillingAccount,
    CollectionMethod,
    Company,
    Document,
    DocumentKind,
    DueWork,
    Interval,
    Invoice,
    InvoiceStatus,
    RefundReason,
    Role,
    Transaction,
    TransactionKind,
    TransactionStatus,
    WorkKind,
)
from plafond.models import TestClock as Clock
from plafond.schema.node import encode_id
from plafond.services.auditing import audit
from plafond.services.decisions import decide_start
from plafond.services.documents import name_receipt
from plafond.services.drawing import draw_due
from plafond.services.errors import Conflict
from plafond.services.papers import Content, PaperKind, PaperSize, Receipt
from plafond.services.refunds import RefundDecision
from plafond.services.retention import purge_year

from ..conftest import Client, World
from . import engine
from .helpers import ACTOR
from .issuing import advance, start_account

RECEIPTED = (TransactionKind.CHARGE, TransactionKind.MANUAL, TransactionKind.REFUND)


async def movements_of(world: World, account_id: UUID) -> list[Transaction]:
    """What moved of an account's money, the first one first."""
    async with world.database.read() as session:
        rows = await session.scalars(
            select(Transaction).where(Transaction.account_id == account_id).order_by(Transaction.id)
        )
        return list(rows)


async def receipts_of(world: World, account_id: UUID) -> dict[UUID, Receipt]:
    """An account's receipts by their transactions. Each has the hash that it was frozen with."""
    async with world.database.read() as session:
        documents = (
            await session.scalars(
                select(Document)
                .where(Document.account_id == account_id, Document.kind == DocumentKind.RECEIPT)
                .order_by(Document.id)
            )
        ).all()
    found = {document.subject_id: Receipt.model_validate(document.content) for document in documents}
    assert [receipt.digest() for receipt in found.values()] == [document.content_hash for document in documents]
    return found


async def change_account(world: World, account_id: UUID, **values: Any) -> None:
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(BillingAccount).where(BillingAccount.id == account_id).values(**values))


async def start_by_transfer(world: World, name: str = "kontor") -> UUID:
    """An account that is sent its first invoice, of January."""
    till = engine.open_till(world.database)
    clock = await engine.open_clock(till, engine.YEAR_BEGINS)
    account_id = await engine.open_account(
        till, name, clock, card=None, country="AT", currency="EUR", collection=CollectionMethod.SEND_INVOICE
    )
    await engine.order(till, account_id, decide_start, "starter", Interval.MONTH)
    return account_id


# What they say


async def test_a_charge_has_a_receipt_of_what_was_paid(world: World) -> None:
    account_id = await start_account(world)
    [charge] = await movements_of(world, account_id)
    [receipt] = (await receipts_of(world, account_id)).values()
    async with world.database.read() as session:
        invoice = await session.get_one(Invoice, charge.invoice_id)
    assert (receipt.kind, receipt.number) == (PaperKind.RECEIPT, name_receipt(charge))
    assert receipt.number.replace("-", "")[1:] == charge.id.hex[-12:].upper()
    assert (receipt.amount_minor, receipt.currency) == (charge.amount_minor, "USD")
    assert (receipt.invoice_number, receipt.pays_by, receipt.reference) == (invoice.number, "visa 4242", None)
    assert receipt.issuer.model_dump(mode="json") == invoice.issuer
    assert receipt.bill_to.model_dump(mode="json") == invoice.bill_to
    assert (receipt.language, receipt.size, receipt.issued_on) == ("en", PaperSize.A4, date(2025, 1, 31))


@pytest.mark.parametrize(("zone", "day"), [("Asia/Tokyo", 11), ("America/New_York", 10)])
async def test_the_day_is_that_of_the_accounts_zone(world: World, zone: str, day: int) -> None:
    account_id = await start_by_transfer(world)
    await advance(world, account_id, 2, 10, 20, 0)
    await change_account(world, account_id, timezone=zone)
    await engine.pay_by_transfer(engine.open_till(world.database), account_id, 1_000, status=InvoiceStatus.OPEN)
    [receipt] = (await receipts_of(world, account_id)).values()
    assert receipt.issued_on == date(2025, 2, day)


async def test_a_transfer_has_a_receipt_with_its_reference(world: World) -> None:
    account_id = await start_by_transfer(world)
    await change_account(world, account_id, locale="de-AT")
    till = engine.open_till(world.database)
    parts = [
        await engine.pay_by_transfer(till, account_id, amount, status=InvoiceStatus.OPEN) for amount in (1_000, 900)
    ]
    receipts = await receipts_of(world, account_id)
    assert list(receipts) == parts
    assert [receipt.amount_minor for receipt in receipts.values()] == [1_000, 900]
    assert {(item.pays_by, item.reference, item.language, item.locale) for item in receipts.values()} == {
        (None, "RF18 5390", "de", "de-AT")
    }
    assert len({item.number for item in receipts.values()}) == 2


async def test_the_paper_is_the_buyers(world: World) -> None:
    account_id = await start_by_transfer(world)
    till = engine.open_till(world.database)
    async with world.database.work(ACTOR) as work:
        is_his = Company.account_id == account_id
        await work.session.execute(update(Company).where(is_his).values(country="US", footer="Dept. 7"))
    await engine.pay_by_transfer(till, account_id, 1_000, status=InvoiceStatus.OPEN)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(Company).where(is_his).values(paper_size="A4", legal_name="Another Name AG"))
    await engine.pay_by_transfer(till, account_id, 900, status=InvoiceStatus.OPEN)
    first, second = (await receipts_of(world, account_id)).values()
    assert [(item.size, item.footer) for item in (first, second)] == [
        (PaperSize.LETTER, "Dept. 7"),
        (PaperSize.A4, "Dept. 7"),
    ]
    # What was frozen before shows the name of then.
    assert [item.bill_to.name for item in (first, second)] == ["kontor Ltd", "Another Name AG"]


async def test_what_did_not_go_through_has_none(world: World) -> None:
    account_id = await start_account(world)
    till = engine.open_till(world.database)
    await engine.add_card(till, account_id, engine.DECLINED)
    await advance(world, account_id, 3, 20)
    movements = [row for row in await movements_of(world, account_id) if row.kind in RECEIPTED]
    assert {row.status for row in movements} == {TransactionStatus.SUCCEEDED, TransactionStatus.FAILED}
    paid = [row.id for row in movements if row.status is TransactionStatus.SUCCEEDED]
    assert list(await receipts_of(world, account_id)) == paid


async def test_credit_has_none(world: World) -> None:
    account_id = await start_account(world)
    await engine.grant(engine.open_till(world.database), account_id, 1_000)
    assert len(await movements_of(world, account_id)) == 2
    assert len(await receipts_of(world, account_id)) == 1


async def test_a_refund_has_a_receipt_that_says_so(world: World) -> None:
    account_id = await start_account(world)
    till = engine.open_till(world.database)
    charge = await engine.first_charge(till, account_id)
    await engine.ask_back(till, charge, RefundReason.GOODWILL, 2_000, RefundDecision.APPROVE)
    [refund] = [row for row in await movements_of(world, account_id) if row.kind is TransactionKind.REFUND]
    receipts = await receipts_of(world, account_id)
    receipt = receipts[refund.id]
    assert (receipt.kind, receipt.amount_minor) == (PaperKind.REFUND_RECEIPT, 2_000)
    assert (receipt.invoice_number, receipt.pays_by) == (receipts[charge].invoice_number, "visa 4242")


async def test_what_went_back_by_transfer_has_one_too(world: World) -> None:
    account_id = await start_account(world)
    till = engine.open_till(world.database)
    again = await engine.pay_by_transfer(till, account_id, 1_500, status=InvoiceStatus.PAID)
    await engine.ask_back(till, again, RefundReason.DUPLICATE, None, RefundDecision.APPROVE)
    [refund] = [row for row in await movements_of(world, account_id) if row.kind is TransactionKind.REFUND]
    receipt = (await receipts_of(world, account_id))[refund.id]
    assert (receipt.kind, receipt.amount_minor) == (PaperKind.REFUND_RECEIPT, 1_500)
    assert (receipt.pays_by, receipt.reference) == (None, None)


RECEIPTS = """query($id: ID!) { node(id: $id) { ... on Transaction {
  status receipt { url expiresAt sha256 } } } }"""


async def test_a_refund_that_the_bank_sends_back_shows_no_receipt_any_more(world: World, client: Client) -> None:
    till = engine.open_till(world.database)
    account_id = await engine.open_account(till, "bounced", None, card="pm_card_refundFail")
    await engine.order(till, account_id, decide_start, "starter", Interval.MONTH)
    charge = await engine.first_charge(till, account_id)
    await engine.ask_back(till, charge, RefundReason.GOODWILL, 2_000, RefundDecision.APPROVE)
    [refund] = [row for row in await movements_of(world, account_id) if row.kind is TransactionKind.REFUND]
    shown: Any = await client.data(world.operator, RECEIPTS, id=encode_id("Transaction", refund.id))
    assert (shown["node"]["status"], shown["node"]["receipt"] is not None) == ("SUCCEEDED", True)
    await engine.hear_all(till)
    shown = await client.data(world.operator, RECEIPTS, id=encode_id("Transaction", refund.id))
    assert shown["node"] == {"status": "FAILED", "receipt": None}
    async with world.database.read() as session:
        assert await audit(session, world.clock.now()) == []


async def test_money_for_a_change_that_came_to_nothing_has_a_receipt_without_an_invoice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    till = engine.open_till(world.database)
    account_id = await engine.open_account(till, "unlucky", None)

    async def has_changed(*_: object) -> bool:
        return False

    monkeypatch.setattr("plafond.services.settlement.still_holds", has_changed)
    with pytest.raises(Conflict, match="the money goes back"):
        await engine.order(till, account_id, decide_start, "starter", Interval.MONTH)
    [charge] = await movements_of(world, account_id)
    assert charge.excess_minor == charge.amount_minor
    [receipt] = (await receipts_of(world, account_id)).values()
    assert (receipt.invoice_number, receipt.amount_minor) == (None, charge.amount_minor)


async def test_all_that_moved_in_the_sandbox_has_one(world: World) -> None:
    async with world.database.read() as session:
        moved = await session.scalars(
            select(Transaction.id).where(
                Transaction.kind.in_(RECEIPTED), Transaction.status == TransactionStatus.SUCCEEDED
            )
        )
        subjects = await session.scalars(select(Document.subject_id).where(Document.kind == DocumentKind.RECEIPT))
        assert set(moved) == set(subjects)


# How they are given


class Pencil:
    """Draws at once."""

    async def draw(self, content: Content) -> bytes:
        return f"%PDF {content.kind} {content.number}".encode()

    async def read_xml(self, pdf: bytes) -> bytes:
        raise AssertionError(f"nobody asks for {pdf!r}")


async def test_the_link_opens_what_was_drawn(world: World, client: Client) -> None:
    account_id = await start_account(world)
    [charge] = await movements_of(world, account_id)
    async with world.database.work(ACTOR) as work:  # `issuing` lays receipts aside
        receipts = await work.session.scalars(select(Document.id).where(Document.subject_id == charge.id))
        mine = [str(id_) for id_ in receipts]
        await work.session.execute(update(DueWork).where(DueWork.subject.in_(mine)).values(done_at=None))
    assert await draw_due(world.database, ACTOR, Pencil()) == 2
    shown: Any = await client.data(world.operator, RECEIPTS, id=encode_id("Transaction", charge.id))
    receipt = shown["node"]["receipt"]
    assert receipt["expiresAt"] == "2026-11-25T12:15:00Z"
    response = await client.http.get(receipt["url"].removeprefix(world.settings.base_url))
    assert response.status_code == 200
    assert response.content == f"%PDF RECEIPT {name_receipt(charge)}".encode()
    assert response.headers["etag"] == f'"{receipt["sha256"]}"'
    assert response.headers["content-disposition"] == f'inline; filename="{name_receipt(charge)}.pdf"'


LISTED = """query($first: Int!) { billingAccount(externalId: "acme") { transactions(first: $first) {
  nodes { id status receipt { url sha256 } } } } }"""


async def test_receipts_of_many_cost_as_much_as_of_one(world: World, client: Client) -> None:
    token = world.token("Acme", Role.TENANT_OWNER)
    counts = []
    for first in (1, 5, 10):
        world.statements.clear()
        shown: Any = await client.data(token, LISTED, first=first)
        nodes = shown["billingAccount"]["transactions"]["nodes"]
        assert len(nodes) == first
        assert all(node["receipt"]["url"].startswith("http://127.0.0.1:8000/documents/") for node in nodes)
        assert len({node["receipt"]["url"] for node in nodes}) == first
        counts.append(len(world.statements))
    assert len(set(counts)) == 1


async def test_nobody_elses_receipt_is_given(world: World, client: Client) -> None:
    async with world.database.read() as session:
        charge = (await session.scalars(select(Transaction.id).limit(1).order_by(Transaction.id))).one()
        owner = await session.get_one(BillingAccount, (await session.get_one(Transaction, charge)).account_id)
    other = "Acme" if owner.external_id != "acme" else "Birchwood"
    for token in (world.token(other, Role.TENANT_OWNER), world.token("Acme", Role.MEMBER)):
        shown: Any = await client.data(token, RECEIPTS, id=encode_id("Transaction", charge))
        assert shown["node"] is None


# How long they are kept


async def purge(world: World, account_id: UUID, year: str, at: datetime) -> None:
    async with world.database.work(ACTOR) as work:
        account = (await work.lock_accounts([account_id]))[account_id]
        await work.session.execute(update(Clock).where(Clock.id == account.test_clock_id).values(now=at))
    async with world.database.work(ACTOR) as work:
        await purge_year(work, (await work.lock_accounts([account_id]))[account_id], year)


async def test_a_receipt_goes_with_its_invoice(world: World) -> None:
    account_id = await start_account(world)
    await purge(world, account_id, "2025", datetime(2040, 1, 1, tzinfo=UTC))
    assert await movements_of(world, account_id) == []
    assert await receipts_of(world, account_id) == {}


async def test_an_invoice_stays_as_long_as_its_youngest_receipt(world: World) -> None:
    account_id = await start_by_transfer(world)
    till = engine.open_till(world.database)
    async with world.database.work(ACTOR) as work:
        account = (await work.lock_accounts([account_id]))[account_id]
        late = datetime(2026, 1, 10, tzinfo=UTC)
        await work.session.execute(update(Clock).where(Clock.id == account.test_clock_id).values(now=late))
    await engine.pay_by_transfer(till, account_id, 5_880, status=InvoiceStatus.OPEN)
    async with world.database.read() as session:
        [invoice] = await session.scalars(select(Invoice).where(Invoice.account_id == account_id))
        years = await session.scalars(
            select(DueWork.subject).where(DueWork.account_id == account_id, DueWork.kind == WorkKind.PURGE)
        )
        assert (invoice.status, sorted(years)) == (InvoiceStatus.PAID, ["2025", "2026"])
    # The year of the invoice is over, that of its payment is not.
    await purge(world, account_id, "2025", datetime(2033, 1, 2, tzinfo=UTC))
    assert len(await receipts_of(world, account_id)) == 1
    await purge(world, account_id, "2026", datetime(2034, 1, 2, tzinfo=UTC))
    assert await receipts_of(world, account_id) == {}
    async with world.database.read() as session:
        assert list(await session.scalars(select(Invoice.id).where(Invoice.account_id == account_id))) == []
