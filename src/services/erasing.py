"""Erasing a person: whatever tells of them in any account goes, but for what the law has documents keep."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Enum, FromClause, String, cast, delete, false, func, or_, select, tuple_, update
from sqlalchemy.sql.elements import ColumnElement

from ..database import ACCESS_TOPIC, Work
from ..models import (
    ApiKeyAccount,
    AuditEntry,
    Base,
    BillingAccount,
    Company,
    Contact,
    Export,
    ExportPart,
    ExportStatus,
    IdempotencyKey,
    Invite,
    Invoice,
    InvoiceStatus,
    MailMessage,
    MailStatus,
    Member,
    OwnershipTransfer,
    Role,
)
from ..models.types import Document as JsonColumn
from . import inputs
from .edits import record_update
from .errors import Conflict, InvalidInput, NotFound
from .expiry import ERASED_ISSUER, erase_details, make_nobody
from .keys import end_openings
from .mailboxes import key_of_email

REDACTED = "[erased]"
NAMED_AT_MOST = 20
"""So many accounts that stand in the way are named."""


class TraceKind(StrEnum):
    """Where something about a person stood."""

    CONTACT = "CONTACT"
    MEMBER = "MEMBER"
    INVITE = "INVITE"
    COMPANY = "COMPANY"
    MAIL = "MAIL"
    AUDIT_ENTRY = "AUDIT_ENTRY"
    EVENT = "EVENT"
    WEBHOOK = "WEBHOOK"
    NOTICE = "NOTICE"
    TEXT = "TEXT"
    EXPORT = "EXPORT"
    INVOICE = "INVOICE"
    CREDIT_NOTE = "CREDIT_NOTE"
    DOCUMENT = "DOCUMENT"


KINDS = {
    "outbox_event": TraceKind.EVENT,
    "webhook_endpoint": TraceKind.WEBHOOK,
    "webhook_delivery": TraceKind.WEBHOOK,
    "webhook_attempt": TraceKind.WEBHOOK,
    "notice": TraceKind.NOTICE,
    "invoice": TraceKind.INVOICE,
    "credit_note": TraceKind.CREDIT_NOTE,
    "document": TraceKind.DOCUMENT,
}
"""By table; what is in none of these is a text that somebody wrote."""
WITH_WAYS_OF_THEIR_OWN = frozenset({"contact", "member", "invite", "company", "mail_message", "audit_entry"})
FROZEN = frozenset(
    {
        "invoice_line",
        "invoice_tax",
        "credit_note",
        "credit_note_line",
        "credit_note_tax",
        "document",
        "ledger_entry",
        "ledger_posting",
    }
)
"""What stays as it was issued; of invoices all but drafts."""
NOT_SEARCHED = {
    "usage_event": "what a sender put into its events: they go by months",
    "usage_event_id": "what a sender put into its events",
    "usage_rollup": "sums by workspace",
    "usage_cost": "sums by workspace",
    "usage_rating": "figures",
    "usage_period": "figures",
    "counter": "figures",
    "effective_limit": "figures",
    "document_bytes": "the drawn form of what is frozen",
    "export_part": "an export's file goes whole",
    "purge_pass": "nothing of a person",
    "deployment": "the vendor's own",
    "operator": "the vendor's own people",
    "issuer": "the vendor itself",
    "number_series": "the vendor's own",
    "metric": "the catalogue",
    "plan": "the catalogue",
    "plan_version": "the catalogue",
    "plan_limit": "the catalogue",
    "add_on": "the catalogue",
    "price": "the catalogue",
    "tax_table_row": "the catalogue",
    "outbox_reader": "the vendor's own",
    "test_clock": "the sandbox's own",
    "sandbox_charge": "the sandbox's own",
    "sandbox_refund": "the sandbox's own",
    "sandbox_dispute": "the sandbox's own",
    "sandbox_conduct": "the sandbox's own",
    "sandbox_message": "the sandbox's own",
}
"""Tables in which nobody is looked for, and why."""


@dataclass
class Person:
    """Who is erased: by addresses as they are compared, by what signs them in, and by names where these stand too."""

    emails: set[str] = field(default_factory=set[str])
    logins: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    names: set[str] = field(default_factory=set[str])

    @property
    def size(self) -> int:
        """How much is known of them."""
        return len(self.emails) + len(self.logins)


@dataclass
class Erasure:
    """What became of a person's data: how much of which kind went, what is kept, and who is left without an owner."""

    erased: dict[TraceKind, int]
    kept: dict[TraceKind, int]
    ownerless: list[UUID]

    def stored(self) -> dict[str, Any]:
        """As it is remembered under an idempotency key: nothing of the person."""
        return {
            "erased": {str(kind): count for kind, count in self.erased.items()},
            "kept": {str(kind): count for kind, count in self.kept.items()},
            "ownerless": [str(account_id) for account_id in self.ownerless],
        }

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "Erasure":
        """What was remembered."""
        return cls(
            {TraceKind(kind): count for kind, count in stored["erased"].items()},
            {TraceKind(kind): count for kind, count in stored["kept"].items()},
            [UUID(account_id) for account_id in stored["ownerless"]],
        )


@dataclass(frozen=True)
class Named:
    """How a person was named: by exactly one of these. `NOBODY` stands for an id that is none."""

    email: str | None = None
    member_id: UUID | None = None
    contact_id: UUID | None = None


async def erase_person(work: Work, named: Named) -> Erasure:
    """Erase a person over all accounts. Refused while a legal hold keeps what is theirs in any of them."""
    person = await _find_person(work, named)
    locked: set[UUID] = set()
    while True:
        # Looked for again under the locks: what came in between is theirs too.
        traces = await _find_traces(work, person)
        missing = traces.account_ids - locked
        if not missing:
            break
        locked |= missing
        accounts = await work.lock_accounts(locked)
        _refuse_held(accounts.values())
    accounts = await work.lock_accounts(locked)
    erased: dict[UUID | None, dict[TraceKind, int]] = defaultdict(lambda: defaultdict(int))
    await _erase_mails(work, traces, erased)
    await _erase_contacts(work, traces, accounts, erased)
    await _erase_members(work, traces, accounts, erased)
    await _erase_invites(work, traces, erased)
    for company in traces.companies:
        company.email, company.updated_at = None, work.clock.now_for(accounts[company.account_id])
        erased[company.account_id][TraceKind.COMPANY] += 1
    for table, account_id, key, values in traces.texts:
        await work.session.execute(update(table).where(*(table.c[name] == part for name, part in key)).values(**values))
        erased[account_id][KINDS.get(table.name, TraceKind.TEXT)] += 1
    await _drop_exports(work, locked, erased)
    for request in traces.requests:
        await work.session.delete(request)
        erased[None][TraceKind.TEXT] += 1
    by_account: dict[UUID, list[AuditEntry]] = defaultdict(list)
    for entry in traces.entries:
        assert entry.account_id is not None, "only accounts' entries are looked for"
        by_account[entry.account_id].append(entry)
    for account_id, entries in by_account.items():
        if count := await erase_details(work, account_id, entries):
            erased[account_id][TraceKind.AUDIT_ENTRY] += count
    for account_id, account in accounts.items():
        if counts := erased[account_id]:
            _tell(work, account, counts)
    total: dict[TraceKind, int] = defaultdict(int)
    for counts in erased.values():
        for kind, count in counts.items():
            total[kind] += count
    work.topics.add(ACCESS_TOPIC)
    owners = {member.account_id for member in traces.members if member.role is Role.TENANT_OWNER}
    return Erasure(dict(total), dict(traces.kept), await _find_ownerless(work, owners))


async def _find_person(work: Work, named: Named) -> Person:
    given = [value for value in (named.email, named.member_id, named.contact_id) if value is not None]
    if len(given) != 1:
        raise InvalidInput("Name the person by one of `email`, `memberId` and `contactId`.", ["input"])
    person, session = Person(), work.session
    if named.email is not None:
        person.emails.add(key_of_email(inputs.check_email(named.email, ["input", "email"])))
    if named.member_id is not None:
        member = await session.get(Member, named.member_id)
        if member is None or member.iss == ERASED_ISSUER:
            raise NotFound("There is no such member, or they were erased already.", ["input", "memberId"])
        _know(person, member)
    if named.contact_id is not None:
        contact = await session.get(Contact, named.contact_id)
        if contact is None:
            raise NotFound("There is no such contact.", ["input", "contactId"])
        person.emails.add(key_of_email(contact.email))
    known = -1
    while known != person.size:
        known = person.size
        # The same person in other accounts, and under what other addresses these know them.
        for member in await session.scalars(select(Member).where(_is_member(person))):
            _know(person, member)
    return person


def _know(person: Person, member: Member) -> None:
    person.logins.add((member.iss, member.sub))
    if member.email is not None:
        person.emails.add(key_of_email(member.email))


def _is_member(person: Person) -> ColumnElement[bool]:
    return or_(
        func.lower(Member.email).in_(person.emails),
        tuple_(Member.iss, Member.sub).in_(person.logins),
    )


@dataclass
class _Traces:
    """All that tells of a person."""

    contacts: list[Contact] = field(default_factory=list[Contact])
    members: list[Member] = field(default_factory=list[Member])
    invites: list[Invite] = field(default_factory=list[Invite])
    companies: list[Company] = field(default_factory=list[Company])
    mails: list[MailMessage] = field(default_factory=list[MailMessage])
    entries: list[AuditEntry] = field(default_factory=list[AuditEntry])
    texts: list[tuple[Any, UUID | None, list[tuple[str, Any]], dict[str, Any]]] = field(default_factory=list)
    """Each as its table, account, key, and what its columns become."""
    requests: list[IdempotencyKey] = field(default_factory=list[IdempotencyKey])
    """Keys that were made of an address."""
    kept: dict[TraceKind, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def account_ids(self) -> set[UUID]:
        """Whose they are."""
        rows: list[Any] = [*self.contacts, *self.members, *self.invites, *self.companies, *self.mails, *self.entries]
        found = {row.account_id for row in rows} | {account_id for _, account_id, _, _ in self.texts}
        return {account_id for account_id in found if account_id is not None}


async def _find_traces(work: Work, person: Person) -> _Traces:
    """A constant number of statements: the tables of people, and each table that holds words."""
    session, emails = work.session, person.emails
    await session.flush()
    found = _Traces()

    async def list_rows(table: Any, where: ColumnElement[bool]) -> list[Any]:
        return list(await session.scalars(select(table).where(where).execution_options(populate_existing=True)))

    found.contacts = await list_rows(Contact, Contact.email_key.in_(emails))
    found.members = await list_rows(Member, _is_member(person))
    found.invites = await list_rows(Invite, Invite.email_key.in_(emails))
    person.names |= {row.name for row in found.contacts} | {row.display_name for row in found.members}
    found.companies = await list_rows(Company, func.lower(Company.email).in_(emails))
    contact_ids = [row.id for row in found.contacts]
    is_theirs = or_(func.lower(MailMessage.recipient).in_(emails), MailMessage.contact_id.in_(contact_ids))
    found.mails = [
        row
        for row in await list_rows(MailMessage, or_(is_theirs, _may_name(MailMessage.__table__, person)))
        if key_of_email(row.recipient) in emails or row.contact_id in contact_ids or _names(person, row.params)
    ]
    people: list[tuple[str, list[Any]]] = [
        ("contact", found.contacts),
        ("member", found.members),
        ("invite", found.invites),
    ]
    objects = [f"{kind}:{row.id}" for kind, rows in people for row in rows]
    about = or_(AuditEntry.object.in_(objects), _may_name(AuditEntry.__table__, person))
    found.entries = [
        entry
        for entry in await list_rows(AuditEntry, (AuditEntry.account_id.is_not(None)) & about)
        if entry.details_hash is None and (entry.object in objects or _names(person, [entry.before, entry.after]))
    ]
    found.requests = [
        row for row in await list_rows(IdempotencyKey, _holds(IdempotencyKey.key, person)) if _names(person, row.key)
    ]
    for searched in list_searched():
        await _search(work, person, searched, found)
    return found


def list_searched() -> Iterator[Any]:
    """The tables whose words are looked through."""
    for table in Base.metadata.sorted_tables:
        if table.name not in NOT_SEARCHED and table.name not in WITH_WAYS_OF_THEIR_OWN and list_words(table):
            yield table


def list_words(table: FromClause) -> list[Any]:
    """The columns of a table that hold words: texts and documents."""
    return [
        column
        for column in table.c
        if not column.primary_key
        and not column.foreign_keys
        and (
            isinstance(column.type, JsonColumn)
            or (isinstance(column.type, String) and not isinstance(column.type, Enum))
        )
    ]


def _may_name(table: FromClause, person: Person) -> ColumnElement[bool]:
    """That some column holds an address, as SQL can tell; whether it stands alone there is looked at afterwards."""
    return or_(*(_holds(column, person) for column in list_words(table)))


def _holds(column: Any, person: Person) -> ColumnElement[bool]:
    # As it is, and as SQLite writes it within documents.
    forms = sorted({form for email in person.emails for form in (email, json.dumps(email)[1:-1])})
    text = func.lower(cast(column, String))
    return or_(false(), *(text.contains(form, autoescape=True) for form in forms))


async def _search(work: Work, person: Person, table: Any, found: _Traces) -> None:
    words, keys = list_words(table), list(table.primary_key)
    owner = [table.c.account_id] if "account_id" in table.c and not table.c.account_id.primary_key else []
    status = [table.c.status] if table.name == "invoice" else []
    columns = [*keys, *(column for column in (*owner, *words) if column not in keys), *status]
    for row in (await work.session.execute(select(*columns).where(_may_name(table, person)))).mappings():
        if not any(_names(person, row[column]) for column in words):
            continue  # a longer address, that ends like this one
        values = {column.key: redact(row[column], person) for column in words}
        changed = {name: value for name, value in values.items() if value != row[table.c[name]]}
        is_frozen = table.name in FROZEN or (
            table.name == "invoice" and row[Invoice.__table__.c.status] != InvoiceStatus.DRAFT
        )
        if is_frozen:
            found.kept[KINDS.get(table.name, TraceKind.DOCUMENT)] += 1
            continue
        account_id = row.get(table.c.account_id) if "account_id" in table.c else None
        if table.name == "billing_account":
            account_id = row[table.c.id]
        found.texts.append((table, account_id, [(key.key, row[key]) for key in keys], changed))


def redact(value: Any, person: Person) -> Any:
    """A value without a person's addresses, and without their name where it says nothing else."""
    if isinstance(value, str):
        if value in person.names:
            return REDACTED
        for email in person.emails:
            value = _pattern(email).sub(REDACTED, value)
        return value
    if isinstance(value, dict):
        return {redact(name, person): redact(item, person) for name, item in value.items()}
    return [redact(item, person) for item in value] if isinstance(value, list) else value


def _names(person: Person, value: Any) -> bool:
    if isinstance(value, str):
        return any(_pattern(email).search(value) for email in person.emails)
    if isinstance(value, dict):
        return any(_names(person, item) for item in [*value, *value.values()])
    return isinstance(value, list) and any(_names(person, item) for item in value)


def _pattern(email: str) -> re.Pattern[str]:
    # As an address of its own: not the end of a longer one.
    return re.compile(rf"(?<![\w.+-]){re.escape(email)}(?![\w-]|\.\w)", re.IGNORECASE)


def _refuse_held(accounts: Collection[BillingAccount]) -> None:
    held = sorted(account.external_id for account in accounts if account.legal_hold is not None)
    if held:
        more = f" and {len(held) - NAMED_AT_MOST} more" if len(held) > NAMED_AT_MOST else ""
        raise Conflict(
            f"A legal hold keeps what tells of the person in {', '.join(held[:NAMED_AT_MOST])}{more}: nothing was "
            "erased. Lift it by `setLegalHold` first.",
            ["input"],
        )


async def _erase_mails(work: Work, traces: _Traces, erased: Any) -> None:
    for mail in traces.mails:
        if mail.status is MailStatus.PENDING:
            mail.status = MailStatus.DROPPED
        mail.recipient, mail.recipient_name, mail.params = "", "", {}
        mail.contact_id, mail.failure = None, None
        mail.key = f"erased:{mail.id}"
        mail.updated_at = work.clock.now()
        erased[mail.account_id][TraceKind.MAIL] += 1
    await work.session.flush()


async def _erase_contacts(work: Work, traces: _Traces, accounts: dict[UUID, BillingAccount], erased: Any) -> None:
    """Contacts go. Where one was the primary, the oldest of those that are left is it now."""
    session = work.session
    headless = {contact.account_id for contact in traces.contacts if contact.is_primary}
    await session.execute(delete(Contact).where(Contact.id.in_([contact.id for contact in traces.contacts])))
    for contact in traces.contacts:
        session.expunge(contact)
        erased[contact.account_id][TraceKind.CONTACT] += 1
    left = await session.scalars(
        select(Contact).where(Contact.account_id.in_(headless)).order_by(Contact.created_at, Contact.id)
    )
    for contact in left:
        if contact.account_id in headless:
            headless.discard(contact.account_id)
            contact.is_primary, contact.updated_at = True, work.clock.now_for(accounts[contact.account_id])
    await session.flush()


async def _erase_members(work: Work, traces: _Traces, accounts: dict[UUID, BillingAccount], erased: Any) -> None:
    """Members are nobody any more, their keys open nothing, and no ownership is offered to them or by them."""
    ids = [member.id for member in traces.members]
    for member in traces.members:
        account = accounts[member.account_id]
        if member.removed_at is None:
            work.emit(account, "member.removed", {"memberId": str(member.id)})
        make_nobody(member, work.clock.now_for(account))
        erased[member.account_id][TraceKind.MEMBER] += 1
    await work.session.flush()
    now = work.clock.now()
    await end_openings(work, ApiKeyAccount.member_id.in_(ids))
    await work.session.execute(
        update(OwnershipTransfer)
        .where(
            or_(OwnershipTransfer.to_member_id.in_(ids), OwnershipTransfer.from_member_id.in_(ids)),
            OwnershipTransfer.accepted_at.is_(None),
            OwnershipTransfer.withdrawn_at.is_(None),
        )
        .values(withdrawn_at=now)
    )


async def _erase_invites(work: Work, traces: _Traces, erased: Any) -> None:
    await work.session.execute(delete(Invite).where(Invite.id.in_([invite.id for invite in traces.invites])))
    for invite in traces.invites:
        work.session.expunge(invite)
        erased[invite.account_id][TraceKind.INVITE] += 1


async def _drop_exports(work: Work, account_ids: Collection[UUID], erased: Any) -> None:
    """Files of accounts that told of the person may tell of them too: they can be asked for again."""
    with_files = await work.session.scalars(
        select(Export).where(Export.account_id.in_(account_ids), Export.status == ExportStatus.READY)
    )
    for export in with_files:
        export.status, export.updated_at = ExportStatus.EXPIRED, work.clock.now()
        erased[export.account_id][TraceKind.EXPORT] += 1
    await work.session.execute(delete(ExportPart).where(ExportPart.account_id.in_(account_ids)))


CHANGED = {
    TraceKind.CONTACT: "contacts",
    TraceKind.MEMBER: "members",
    TraceKind.INVITE: "members",
    TraceKind.COMPANY: "company",
}


def _tell(work: Work, account: BillingAccount, counts: dict[TraceKind, int]) -> None:
    record_update(
        work,
        account,
        "person.erased",
        f"billing_account:{account.id}",
        changed={CHANGED[kind] for kind in counts if kind in CHANGED},
        after={"erased": {str(kind): count for kind, count in sorted(counts.items())}},
    )


async def _find_ownerless(work: Work, account_ids: Collection[UUID]) -> list[UUID]:
    owned = await work.session.scalars(
        select(Member.account_id).where(
            Member.account_id.in_(account_ids), Member.role == Role.TENANT_OWNER, Member.removed_at.is_(None)
        )
    )
    return sorted(set(account_ids) - set(owned))
