"""What operators take back of issued invoices."""

from collections.abc import Sequence
from uuid import UUID

from ..database import Work
from ..models import CreditNote, Invoice
from . import books, inputs
from .accounts import lock_account
from .bills import CreditDraft
from .closing import load_standing
from .errors import InvalidInput, NotFound
from .invoicing import credit_part, issue_credit_note, load_credited, load_lines, void_invoice
from .permissions import check_creditable
from .receiving import restore
from .wording import format_money

MAX_LINES = 100
MAX_REASON = 500


async def void(work: Work, account_id: UUID, invoice_id: UUID, reason: str) -> CreditNote:
    """Withdraw an unpaid invoice. What it was overdue for is settled by it."""
    account = await lock_account(work, account_id)
    invoice = await work.session.get_one(Invoice, invoice_id, populate_existing=True)
    reason = inputs.check_text(reason, ("input", "reason"), at_most=MAX_REASON)
    note = await void_invoice(work, await load_standing(work, account), invoice, reason)
    await restore(work, account)
    return note


async def credit(
    work: Work, account_id: UUID, invoice_id: UUID, parts: Sequence[tuple[UUID | None, int]], reason: str
) -> CreditNote:
    """Take back agreed amounts, net, of lines of an invoice; never more than is not credited yet."""
    account = await lock_account(work, account_id)
    invoice = await work.session.get_one(Invoice, invoice_id, populate_existing=True)
    reason = inputs.check_text(reason, ("input", "reason"), at_most=MAX_REASON)
    check_creditable(invoice)
    if not 1 <= len(parts) <= MAX_LINES:
        raise InvalidInput(f"Name 1 to {MAX_LINES} lines.", ["input", "lines"])
    lines = {line.id: line for line in await load_lines(work, invoice.id)}
    credited = await load_credited(work, invoice.id)
    drafts = []
    seen: set[UUID] = set()
    for place, (line_id, amount_minor) in enumerate(parts):
        field = ["input", "lines", str(place)]
        line = None if line_id is None else lines.get(line_id)
        if line is None or line.amount_minor <= 0:
            raise NotFound("The invoice has no such line to credit.", [*field, "lineId"])
        if line.id in seen:
            raise InvalidInput("Name each line once.", [*field, "lineId"])
        seen.add(line.id)
        rest = line.amount_minor - credited.get(line.id, 0)
        if amount_minor <= 0:
            raise InvalidInput("`amountMinor` is above 0.", [*field, "amountMinor"])
        if amount_minor > rest:
            raise InvalidInput(
                f"At most {format_money(rest, invoice.currency, 'en')}, net, of this line is not credited yet.",
                [*field, "amountMinor"],
            )
        drafts.append(credit_part(invoice, line, amount_minor))
    await books.recognise(work, account, work.clock.now_for(account))
    draft = CreditDraft(invoice_id=invoice.id, lines=tuple(drafts))
    note = await issue_credit_note(work, await load_standing(work, account), draft, reason="OPERATOR", ends=False)
    work.audit(account, "credit_note.reasoned", f"credit_note:{note.id}", after={"reason": reason})
    await restore(work, account)
    return note
