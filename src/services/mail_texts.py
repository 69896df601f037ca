"""What mails say: the text of each kind, from what was planned and, where that may have moved on, as it stands now."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import and_, select

from ..database import ReadSession
from ..models import (
    Alert,
    AlertKind,
    AlertLevel,
    BillingAccount,
    Budget,
    BudgetScope,
    Contact,
    ContactTopic,
    Document,
    DocumentBytes,
    DocumentKind,
    Interval,
    Invite,
    Issuer,
    MailKind,
    MailMessage,
    Metric,
    TestClock,
)
from .advice import Buyer, Fit, Market, find_fit, load_market
from .claims import Claim, Purpose, sign_claim
from .documents import language_of_locale
from .invitations import invitation_url
from .letters import Attachment, Letter, Link
from .mail_words import mail_word
from .mailing import UNSUBSCRIBABLE
from .papers import Paper, PaperKind, read_content
from .relations import load_agreements, load_held_add_ons
from .texts import days_until, notice_text
from .usage import UsageFigure, load_figures
from .wording import agree, format_day, format_money, format_number, name_country, notice_words, word

DRAWN_WITHIN = timedelta(hours=1)
"""So long a mail waits for the PDF that goes along; then it goes without."""
DIGEST_SHOWN = 50
"""So many alerts stand in one digest; of more it tells the number."""
TOPICS = tuple(ContactTopic)
"""A link to unsubscribe names its topic by the place in here."""


class NotYet(Exception):
    """What goes along is not there yet: the mail waits."""


@dataclass(frozen=True)
class Desk:
    """Where links in mails lead, and what signs them."""

    dashboard_url: str
    """Where people read their billing page."""
    base_url: str
    """Where this server is reached."""
    key: bytes

    def unsubscribe_url(self, contact_id: UUID, topic: ContactTopic) -> str:
        """Where a contact ends a topic, without signing in."""
        claim = Claim(contact_id, TOPICS.index(topic))
        return f"{self.base_url}/unsubscribe/{sign_claim(self.key, Purpose.UNSUBSCRIBE, claim)}"


@dataclass(frozen=True, kw_only=True)
class _Said:
    """What a kind of mail has to say."""

    subject: str
    paragraphs: Sequence[str]
    facts: Sequence[tuple[str, str]] = ()
    button: Link | None = None
    attachment: Attachment | None = None


@dataclass(frozen=True, kw_only=True)
class _Writing:
    """One mail while it is written."""

    session: ReadSession
    message: MailMessage
    account: BillingAccount
    language: str
    locale: str
    now: datetime
    """By the account's clock."""
    wall: datetime
    desk: Desk

    @property
    def params(self) -> Mapping[str, Any]:
        """What was planned."""
        return self.message.params

    def word(self, key: str, **facts: object) -> str:
        """A sentence in the mail's language."""
        return mail_word(self.language, key, **facts)

    def money(self, amount_minor: int, currency: str | None = None) -> str:
        """An amount, in the account's currency unless said."""
        return format_money(amount_minor, currency or self.account.currency, self.locale)

    def number(self, number: int) -> str:
        """A whole number."""
        return format_number(number, self.locale)

    def day(self, at: datetime | str) -> str:
        """The day of an instant in the account's zone."""
        instant = datetime.fromisoformat(at) if isinstance(at, str) else at
        return format_day(instant.astimezone(ZoneInfo(self.account.timezone)).date(), self.locale)


async def write_letter(session: ReadSession, message: MailMessage, desk: Desk, wall: datetime) -> Letter | None:
    """A mail as it is to be read now; none where it has nothing to say any more, or nobody to say it to.

    Raises `NotYet` while its PDF is not drawn.
    """
    account, issuer, contact, at = (
        await session.execute(
            select(BillingAccount, Issuer, Contact, TestClock.now)
            .join(Issuer, Issuer.id == BillingAccount.issuer_id)
            .outerjoin(Contact, Contact.id == message.contact_id)
            .outerjoin(TestClock, TestClock.id == BillingAccount.test_clock_id)
            .where(BillingAccount.id == message.account_id)
        )
    ).one()
    if message.topic is not None and (contact is None or message.topic not in contact.topics):
        return None
    language = language_of_locale(message.locale)
    writing = _Writing(
        session=session,
        message=message,
        account=account,
        language=language,
        locale=agree(message.locale, language),
        now=at or wall,
        wall=wall,
        desk=desk,
    )
    said = await _WRITERS[message.kind](writing)
    if said is None:
        return None
    return Letter(
        id=message.id,
        written_at=message.created_at,
        recipient=message.recipient,
        recipient_name=message.recipient_name,
        sender_name=issuer.legal_name,
        language=language,
        subject=said.subject,
        paragraphs=tuple(said.paragraphs),
        facts=tuple(said.facts),
        button=said.button or Link(writing.word("open_page"), desk.dashboard_url),
        why=_explain(writing),
        unsubscribing=_offer_end(writing),
        footer=(
            issuer.legal_name,
            *issuer.address_lines,
            f"{issuer.postal_code} {issuer.city}".strip(),
            name_country(issuer.country, writing.locale),
        ),
        attachment=said.attachment,
    )


def _explain(writing: _Writing) -> str:
    message, account = writing.message, writing.account.name
    if message.topic is not None:
        return writing.word("why_contact", account=account, topic=writing.word(message.topic))
    return writing.word("why_invited" if message.kind is MailKind.INVITATION else "why_company", account=account)


def _offer_end(writing: _Writing) -> Link | None:
    message = writing.message
    if message.topic not in UNSUBSCRIBABLE or message.contact_id is None:
        return None
    label = writing.word("unsubscribe", topic=writing.word(message.topic))
    return Link(label, writing.desk.unsubscribe_url(message.contact_id, message.topic))


# --- alerts ----------------------------------------------------------------------------------------------------------


async def _write_alert(writing: _Writing) -> _Said | None:
    rows = await _read_alerts(writing, Alert.id == UUID(writing.params["alertId"]))
    if not rows:
        return None
    [(alert, metric, budget)] = rows
    if alert.kind is AlertKind.SPIKE:
        title, text = _tell_spike(writing, alert, metric)
        said = _Said(subject=title, paragraphs=[text])
    elif budget is not None:
        said = await _tell_budget(writing, alert, budget)
    elif metric is not None:
        said = await _tell_usage(writing, alert, metric)
    else:
        return None
    state = _state_of(alert)
    if state == "open":
        return said
    return _Said(subject=said.subject, paragraphs=[*said.paragraphs, writing.word(f"is_{state}")], facts=said.facts)


async def _read_alerts(writing: _Writing, *which: Any) -> list[tuple[Alert, Metric | None, Budget | None]]:
    """Alerts of the account, with what each is about, in order of being raised."""
    found = await writing.session.execute(
        select(Alert, Metric)
        .outerjoin(Metric, and_(Metric.key == Alert.subject, Alert.kind != AlertKind.BUDGET))
        .where(Alert.account_id == writing.account.id, *which)
        .order_by(Alert.sequence)
    )
    rows: list[tuple[Alert, Metric | None]] = [(alert, metric) for alert, metric in found]
    ids = {UUID(alert.subject) for alert, _ in rows if alert.kind is AlertKind.BUDGET}
    budgets: dict[str, Budget] = {}
    if ids:
        named = await writing.session.scalars(select(Budget).where(Budget.id.in_(ids)))
        budgets = {str(row.id): row for row in named}
    return [
        (alert, metric, budgets.get(alert.subject))
        for alert, metric in rows
        if metric is not None or alert.subject in budgets
    ]


def _state_of(alert: Alert) -> str:
    if alert.resolved_at is not None:
        return "resolved"
    return "open" if alert.acknowledged_at is None else "acknowledged"


def _tell_spike(writing: _Writing, alert: Alert, metric: Metric | None) -> tuple[str, str]:
    params = {
        "metricName": metric.name if metric else alert.subject,
        "day": alert.spike["day"],
        "used": alert.used,
        "expected": alert.ceiling,
        "causes": alert.spike["causes"],
    }
    return notice_text("USAGE_SPIKE", params, writing.language)


def _name_usage(writing: _Writing, alert: Alert, metric: Metric) -> str:
    said = {"metric": metric.name, "threshold": writing.number(alert.threshold)}
    if alert.threshold == 100:
        return writing.word("subject_reached", metric=metric.name)
    title = notice_words(writing.language, "USAGE_TITLE").format_map(said)
    return writing.word("subject_urgent", title=title) if alert.level is AlertLevel.URGENT else title


async def _tell_usage(writing: _Writing, alert: Alert, metric: Metric) -> _Said:
    """The figures of that moment, what is advised at this level, and what happens at the limit."""
    used, limit = writing.number(alert.used), writing.number(alert.ceiling)
    threshold = writing.number(alert.threshold)
    facts = [
        (writing.word("used"), used),
        (word(writing.language, "limit"), limit),
        (writing.word("threshold"), f"{threshold}\u00a0%"),
    ]
    figures = (await load_figures(writing.session, [writing.account.id], writing.now)).get(writing.account.id, [])
    figure = next((item for item in figures if item.metric.key == metric.key), None)
    if figure is not None and figure.resets_at is not None:
        facts.append((writing.word("resets_on"), writing.day(figure.resets_at)))
    paragraphs = [writing.word("used_of", used=used, limit=limit, threshold=threshold)]
    if alert.level is AlertLevel.NOTICE:
        paragraphs.append(writing.word("own_threshold"))
    elif alert.level is AlertLevel.WARNING:
        paragraphs.append(notice_words(writing.language, "USAGE_WARNING"))
    else:
        if alert.level is AlertLevel.URGENT:
            paragraphs.append(notice_words(writing.language, "USAGE_URGENT"))
        paragraphs += await _advise(writing, alert, figures)
    if figure is not None:
        policy = _tell_policy(writing, figure)
        if alert.level is AlertLevel.LIMIT_REACHED:
            paragraphs.insert(1, writing.word("now", what=policy))
        else:
            facts.append((writing.word("at_full"), policy))
    return _Said(subject=_name_usage(writing, alert, metric), paragraphs=paragraphs, facts=facts)


def _tell_policy(writing: _Writing, figure: UsageFigure) -> str:
    price, block = figure.overage_price_minor, figure.metric.overage_block
    return writing.word(
        f"policy_{figure.policy}",
        price="" if price is None else writing.money(price),
        block="" if block is None else writing.number(block),
    )


async def _advise(writing: _Writing, alert: Alert, figures: Sequence[UsageFigure]) -> list[str]:
    """The plan that would fit, and the add-on that would do too."""
    [agreement] = await load_agreements(writing.session, [writing.account.id])
    [add_ons] = await load_held_add_ons(writing.session, [writing.account.id])
    market = await load_market(writing.session)
    fit = find_fit(market, Buyer(writing.account, agreement, add_ons, figures), alert)
    interval = agreement.subscription.interval if agreement else Interval.MONTH
    said = _tell_plan(writing, market, fit, interval, alert.subject)
    if not said and alert.level is AlertLevel.UPGRADE_SUGGESTION and fit.add_on is None:
        said = [notice_words(writing.language, "USAGE_UPGRADE_SUGGESTION")]
    if fit.add_on is not None and fit.quantity is not None:
        said.append(writing.word("add_on_fits", addOn=fit.add_on.name, quantity=writing.number(fit.quantity)))
    return said


def _tell_plan(writing: _Writing, market: Market, fit: Fit, interval: Interval, metric_key: str) -> list[str]:
    if fit.plan is None:
        return []
    priced = next(item for item in market.plans if item.offer.version.id == fit.plan.version.id)
    price = priced.prices.get((interval, writing.account.currency)) or priced.prices.get(
        (Interval.MONTH, writing.account.currency)
    )
    assert price is not None, "what fits has a price in the account's currency"
    limit = priced.limits.get(metric_key, 0)
    included = word(writing.language, "unlimited") if limit is None else writing.number(limit)
    key = "plan_fits_year" if interval is Interval.YEAR else "plan_fits"
    return [writing.word(key, plan=fit.plan.plan.name, limit=included, price=writing.money(price))]


async def _name_budget(writing: _Writing, budget: Budget) -> str:
    subject = budget.subject
    if budget.scope is BudgetScope.METRIC:
        subject = await writing.session.scalar(select(Metric.name).where(Metric.key == subject)) or subject
    return writing.word(f"budget_{budget.scope}", subject=subject)


async def _tell_budget(writing: _Writing, alert: Alert, budget: Budget) -> _Said:
    spent, limit = writing.money(alert.used), writing.money(alert.ceiling)
    threshold = writing.number(alert.threshold)
    facts = [
        (writing.word("spent"), spent),
        (writing.word("budget"), limit),
        (writing.word("threshold"), f"{threshold}\u00a0%"),
    ]
    paragraphs = [writing.word("budget_spent", spent=spent, limit=limit)]
    action = writing.word(f"action_{budget.action}")
    if alert.threshold >= 100:
        paragraphs.append(writing.word("now", what=action))
    else:
        facts.append((writing.word("at_full"), action))
    if alert.period_end is not None:
        facts.insert(3, (writing.word("resets_on"), writing.day(alert.period_end)))
    name = await _name_budget(writing, budget)
    return _Said(
        subject=writing.word("budget_title", budget=name, threshold=threshold), paragraphs=paragraphs, facts=facts
    )


async def _write_digest(writing: _Writing) -> _Said | None:
    until = datetime.fromisoformat(writing.params["until"])
    zone = ZoneInfo(writing.account.timezone)
    # The same time of day, whatever the clocks did in between.
    since = (until.astimezone(zone) - timedelta(days=1)).astimezone(until.tzinfo)
    rows = await _read_alerts(writing, Alert.raised_at >= since, Alert.raised_at < until)
    if not rows:
        return None
    facts = [await _tell_in_digest(writing, alert, metric, budget) for alert, metric, budget in rows[:DIGEST_SHOWN]]
    paragraphs = [writing.word("digest_intro")]
    if len(rows) > DIGEST_SHOWN:
        paragraphs.append(writing.word("digest_more", count=len(rows) - DIGEST_SHOWN))
    return _Said(
        subject=writing.word("digest_subject", count=writing.number(len(rows))), paragraphs=paragraphs, facts=facts
    )


async def _tell_in_digest(
    writing: _Writing, alert: Alert, metric: Metric | None, budget: Budget | None
) -> tuple[str, str]:
    state = writing.word(f"state_{_state_of(alert)}")
    if budget is not None:
        name = writing.word(
            "budget_title", budget=await _name_budget(writing, budget), threshold=writing.number(alert.threshold)
        )
        used, limit = writing.money(alert.used), writing.money(alert.ceiling)
    else:
        assert metric is not None, "what an alert is about was read with it"
        used, limit = writing.number(alert.used), writing.number(alert.ceiling)
        if alert.kind is AlertKind.SPIKE:
            name, text = _tell_spike(writing, alert, metric)
            return name, f"{text} ({state})"
        name = _name_usage(writing, alert, metric)
    return name, writing.word("digest_usage", used=used, limit=limit, state=state)


# --- documents -------------------------------------------------------------------------------------------------------


async def _write_invoice(writing: _Writing) -> _Said | None:
    found = await _read_paper(writing, DocumentKind.INVOICE, writing.params["invoiceId"])
    if found is None:
        return None
    paper, attachment = found
    due = writing.money(paper.due_minor, paper.currency)
    said = {"number": paper.number, "amount": writing.money(paper.total_minor, paper.currency)}
    facts = [
        *_facts_of(writing, paper),
        (word(writing.language, "due"), due),
    ]
    if paper.due_on is not None and paper.net_days is not None:
        facts.append((word(writing.language, "due_on"), format_day(paper.due_on, writing.locale)))
    return _Said(
        subject=writing.word("invoice_subject", **said),
        paragraphs=[
            writing.word("invoice_issued", **said),
            _tell_payment(writing, paper, due),
            writing.word("is_attached" if attachment else "is_online"),
        ],
        facts=facts,
        attachment=attachment,
    )


async def _write_credit_note(writing: _Writing) -> _Said | None:
    found = await _read_paper(writing, DocumentKind.CREDIT_NOTE, writing.params["creditNoteId"])
    if found is None:
        return None
    paper, attachment = found
    said = {"number": paper.number, "amount": writing.money(paper.total_minor, paper.currency)}
    key = "credited_to_you" if paper.corrected_number is None else "credited"
    return _Said(
        subject=writing.word("credit_note_subject", **said),
        paragraphs=[
            word(writing.language, key).format(number=paper.corrected_number),
            writing.word("is_attached" if attachment else "is_online"),
        ],
        facts=_facts_of(writing, paper),
        attachment=attachment,
    )


def _facts_of(writing: _Writing, paper: Paper) -> list[tuple[str, str]]:
    total = "total" if paper.kind is PaperKind.INVOICE else "total_credited"
    return [
        (word(writing.language, "number"), paper.number),
        (word(writing.language, "issued_on"), format_day(paper.issued_on, writing.locale)),
        (word(writing.language, total), writing.money(paper.total_minor, paper.currency)),
    ]


def _tell_payment(writing: _Writing, paper: Paper, due: str) -> str:
    if paper.due_minor == 0:
        return word(writing.language, "nothing_due")
    if paper.net_days is not None and paper.due_on is not None:
        day = format_day(paper.due_on, writing.locale)
        return word(writing.language, "transfer").format(amount=due, date=day, number=paper.number)
    if paper.pays_by is None:
        return word(writing.language, "charged_somehow")
    brand, _, digits = paper.pays_by.rpartition(" ")
    return word(writing.language, "charged").format(method=f"{brand.title()} •••• {digits}")


async def _read_paper(writing: _Writing, kind: DocumentKind, subject: str) -> tuple[Paper, Attachment | None] | None:
    """What a document shows, and its PDF. One that cannot be drawn, or not in time, goes without."""
    row = (
        await writing.session.execute(
            select(Document, DocumentBytes.pdf)
            .outerjoin(DocumentBytes, DocumentBytes.document_id == Document.id)
            .where(
                Document.kind == kind,
                Document.subject_id == UUID(subject),
                Document.account_id == writing.account.id,
            )
        )
    ).one_or_none()
    if row is None:
        return None
    document: Document = row[0]
    pdf: bytes | None = row[1]
    paper = read_content(document.content)
    assert isinstance(paper, Paper), "an invoice or a credit note"
    if pdf is None:
        if document.failure is None and writing.wall < writing.message.created_at + DRAWN_WITHIN:
            raise NotYet
        return paper, None
    return paper, Attachment(name=f"{paper.number}.pdf", media_type="application/pdf", content=pdf)


# --- money -----------------------------------------------------------------------------------------------------------


async def _write_failure(writing: _Writing) -> _Said:
    params = writing.params
    said = {"number": params["number"], "amount": writing.money(params["amountMinor"], params["currency"])}
    is_sent = params["isSent"]
    paragraphs = [writing.word("was_not_paid" if is_sent else "was_not_charged", **said)]
    if params["failure"] is not None:
        paragraphs.append(writing.word(f"failure_{params['failure']}"))
    facts = [
        (word(writing.language, "invoice"), params["number"]),
        (word(writing.language, "amount"), said["amount"]),
    ]
    for name, key in (("suspendsAt", "will_suspend"), ("cancelsAt", "will_end")):
        if name in params:
            end, at = datetime.fromisoformat(params[name]), datetime.fromisoformat(params["at"])
            paragraphs.append(writing.word(key, day=writing.day(end)))
            facts.append((writing.word("days_left"), str(days_until(end, at, writing.account.timezone))))
    paragraphs.append(writing.word("pay_by_transfer" if is_sent else "pay_by_card"))
    subject = writing.word("overdue_subject" if is_sent else "failed_subject", **said)
    return _Said(subject=subject, paragraphs=paragraphs, facts=facts)


async def _write_recovery(writing: _Writing) -> _Said:
    params = writing.params
    said = {"number": params["number"], "amount": writing.money(params["amountMinor"], params["currency"])}
    return _Said(
        subject=writing.word("recovered_subject", **said),
        paragraphs=[
            writing.word("recovered", **said),
            writing.word("all_settled" if params["isSettled"] else "more_open"),
        ],
        facts=[
            (word(writing.language, "invoice"), params["number"]),
            (word(writing.language, "amount"), said["amount"]),
        ],
    )


async def _write_card(writing: _Writing) -> _Said:
    params = writing.params
    return _Said(
        subject=writing.word("card_subject", last4=params["last4"]),
        paragraphs=[writing.word("card_expiring")],
        facts=[
            (writing.word("card"), f"•••• {params['last4']}"),
            (writing.word("expires"), f"{int(params['expMonth']):02}/{params['expYear']}"),
        ],
    )


async def _write_refund(writing: _Writing) -> _Said:
    params = writing.params
    amount = writing.money(params["amountMinor"], params["currency"])
    facts = [(word(writing.language, "amount"), amount)]
    if params["reason"]:
        facts.append((writing.word("reason"), params["reason"]))
    key = f"refund_{params['outcome']}"
    return _Said(subject=writing.word(f"{key}_subject", amount=amount), paragraphs=[writing.word(key)], facts=facts)


# --- what comes, and what changed ------------------------------------------------------------------------------------


async def _write_trial(writing: _Writing) -> _Said:
    params = writing.params
    missing = [
        writing.word(key)
        for name, key in (("hasCompany", "trial_needs_company"), ("hasMethod", "trial_needs_method"))
        if not params[name]
    ]
    if missing:
        paragraphs = [*missing, writing.word("trial_else")]
    else:
        paragraphs = [writing.word("trial_goes_on_sent" if params["isSent"] else "trial_goes_on")]
    return _Said(
        subject=writing.word("trial_subject", day=writing.day(params["endsAt"])),
        paragraphs=paragraphs,
        facts=[(writing.word("days_left"), str(params["daysLeft"]))],
    )


async def _write_renewal(writing: _Writing) -> _Said:
    params = writing.params
    amount = writing.money(params["amountMinor"], params["currency"])
    return _Said(
        subject=writing.word("renewal_subject", day=writing.day(params["at"])),
        paragraphs=[writing.word("renewal", amount=amount)],
        facts=[
            (writing.word("price_year"), amount),
            (writing.word("days_left"), str(params["daysLeft"])),
        ],
    )


_CHANGES = {
    "subscription.started": "STARTED",
    "subscription.changed": "CHANGED",
    "subscription.scheduled": "CHANGE_SCHEDULED",
    "subscription.resumed": "RESUMED",
    "subscription.reactivated": "REACTIVATED",
    "subscription.canceled": "CANCELED",
    "subscription.suspended": "SUSPENDED",
    "subscription.expired": "EXPIRED",
}
_STEPS = {"START_TRIAL": "TRIAL_STARTED", "END_TRIAL": "TRIAL_ENDED", "GIVE_UP": "CANCELED_UNPAID"}


def _name_change(params: Mapping[str, Any]) -> str:
    """Which of the changes it was, by what the event says."""
    if params["event"] == "subscription.changed" and "addOn" in params:
        return "ADD_ON"
    if params["event"] == "subscription.changed" and "planName" not in params:
        return "TAKEN_BACK"
    if params["event"] == "subscription.scheduled" and "cancelsAt" in params:
        return "CANCEL_SCHEDULED"
    return _STEPS.get(params["step"]) or _CHANGES[params["event"]]


async def _write_change(writing: _Writing) -> _Said:
    params = writing.params
    key = _name_change(params)
    at = params.get("cancelsAt") or params.get("effectiveAt") or params["at"]
    said = {"plan": params.get("planName", ""), "day": writing.day(at)}
    facts = [(writing.word("day"), said["day"])]
    if "planName" in params:
        facts.insert(0, (writing.word("plan"), said["plan"]))
        if key in ("STARTED", "CHANGED", "REACTIVATED"):
            label = "price_year" if params["interval"] == Interval.YEAR else "price_month"
            facts.append((writing.word(label), writing.money(params["amountMinor"], params["currency"])))
    if key == "ADD_ON":
        facts = [
            (writing.word("add_on"), params["addOnName"]),
            (writing.word("quantity"), writing.number(params["quantity"])),
            *facts,
        ]
    return _Said(subject=writing.word(f"{key}_subject", **said), paragraphs=[writing.word(key)], facts=facts)


# --- others ----------------------------------------------------------------------------------------------------------


async def _write_invitation(writing: _Writing) -> _Said | None:
    invite = await writing.session.get(Invite, UUID(writing.params["inviteId"]))
    if invite is None or invite.accepted_at or invite.revoked_at or invite.expires_at <= writing.wall:
        return None
    desk, account = writing.desk, writing.account.name
    return _Said(
        subject=writing.word("invitation_subject", account=account),
        paragraphs=[writing.word("invitation", account=account, day=writing.day(invite.expires_at))],
        facts=[(writing.word("role"), writing.word(invite.role))],
        button=Link(writing.word("accept_invitation"), invitation_url(desk.dashboard_url, desk.key, invite)),
    )


async def _write_webhook(writing: _Writing) -> _Said:
    return _Said(
        subject=writing.word("webhook_subject"),
        paragraphs=[writing.word("webhook")],
        facts=[(writing.word("address"), writing.params["url"])],
    )


_WRITERS: Mapping[MailKind, Callable[[_Writing], Awaitable[_Said | None]]] = {
    MailKind.USAGE_ALERT: _write_alert,
    MailKind.ALERT_DIGEST: _write_digest,
    MailKind.INVOICE_ISSUED: _write_invoice,
    MailKind.CREDIT_NOTE_ISSUED: _write_credit_note,
    MailKind.PAYMENT_FAILED: _write_failure,
    MailKind.PAYMENT_RECOVERED: _write_recovery,
    MailKind.CARD_EXPIRING: _write_card,
    MailKind.TRIAL_ENDING: _write_trial,
    MailKind.RENEWAL_AHEAD: _write_renewal,
    MailKind.SUBSCRIPTION_CHANGED: _write_change,
    MailKind.REFUND: _write_refund,
    MailKind.INVITATION: _write_invitation,
    MailKind.WEBHOOK_DISABLED: _write_webhook,
}
