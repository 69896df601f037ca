"""What may go back of a charge, by rows that are stored nowhere."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from plafond.models import (
    InvoiceLine,
    LineKind,
    RefundReason,
    Transaction,
    TransactionKind,
    TransactionStatus,
)
from plafond.services.refundables import Asked, Refundable, judge, list_eligible
from plafond.services.rules.periods import Period
from plafond.services.rules.refunds import OpenLine, RefundCode

START = datetime(2026, 1, 1, tzinfo=UTC)
ACCOUNT, INVOICE = uuid4(), uuid4()


def line(kind: LineKind, amount_minor: int, days: int, plan_key: str | None = None) -> InvoiceLine:
    """A line from the start on, without tax."""
    return InvoiceLine(
        created_at=START,
        account_id=ACCOUNT,
        invoice_id=INVOICE,
        position=0,
        kind=kind,
        description="",
        quantity=1,
        unit_minor=amount_minor,
        amount_minor=amount_minor,
        period_start=START,
        period_end=START + timedelta(days=days),
        tax_country="US",
        taxes=[],
        basis={},
        plan_key=plan_key,
    )


def annual() -> tuple[Refundable, UUID, UUID]:
    """A year of a plan and a month of seats, paid at once. Gives both lines' ids too."""
    plan = line(LineKind.SUBSCRIPTION, 36_500, 365, plan_key="starter")
    seats = line(LineKind.ADD_ON, 3_000, 30)
    charge = Transaction(
        created_at=START,
        account_id=ACCOUNT,
        invoice_id=INVOICE,
        kind=TransactionKind.CHARGE,
        status=TransactionStatus.SUCCEEDED,
        currency="USD",
        amount_minor=39_500,
        description="",
    )
    rows = {UUID(int=1): plan, UUID(int=2): seats}
    lines = {
        key: OpenLine(row.amount_minor, row.amount_minor, (), Period(row.period_start, row.period_end))
        for key, row in rows.items()
    }
    return Refundable(charge=charge, rows=rows, lines=lines), UUID(int=1), UUID(int=2)


def test_an_annual_plan_is_credited_for_the_time_of_its_verdict() -> None:
    """Asked for the whole year on its third day: two days of each line, whether judged or credited."""
    item, plan, seats = annual()
    now = START + timedelta(days=2)
    for period in (None, Period(START, START + timedelta(days=365))):
        asked = Asked(reason=RefundReason.SERVICE_ISSUE, period=period)
        assert list_eligible(item, asked, now) == {plan: 200, seats: 200}
        assert judge(item, asked, now).maximum_minor == 400


def test_an_annual_plan_is_not_given_back_for_time_to_come() -> None:
    item, _, _ = annual()
    now = START + timedelta(days=2)
    asked = Asked(reason=RefundReason.SERVICE_ISSUE, period=Period(now, now + timedelta(days=9)))
    assert list_eligible(item, asked, now) == {}
    assert judge(item, asked, now).code is RefundCode.ANNUAL_PLAN
