"""The banner of a metric or budget near its limit: one for each, of the highest alert that is open."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import and_, select, tuple_

from ..database import Work
from ..models import Alert, AlertKind, AlertLevel, BillingAccount, Budget, Metric, Notice, NoticeSeverity
from .notices import Said, change_notice, clear_standing, raise_new

USAGE_THRESHOLD = "USAGE_THRESHOLD"
CODES = {
    AlertKind.USAGE: USAGE_THRESHOLD,
    AlertKind.BUDGET: "BUDGET_THRESHOLD",
    AlertKind.SPIKE: "USAGE_SPIKE",
}
"""What the banner of a kind of alert is known by."""
SEVERITIES = {
    AlertLevel.WARNING: NoticeSeverity.WARNING,
    AlertLevel.UPGRADE_SUGGESTION: NoticeSeverity.WARNING,
    AlertLevel.URGENT: NoticeSeverity.CRITICAL,
    AlertLevel.LIMIT_REACHED: NoticeSeverity.CRITICAL,
}
"""How loud the banner of a level is. A level that is not here makes none."""


class Subject(NamedTuple):
    """A metric or budget of an account."""

    account_id: UUID
    kind: AlertKind
    subject: str
    """The metric's key, or the budget's id."""


async def put_banners(work: Work, accounts: Mapping[UUID, BillingAccount], subjects: Collection[Subject]) -> None:
    """Put the banners of metrics and budgets right, after alerts of locked accounts were raised or resolved.

    Three statements at most read whatever number of them. What was put away comes back for an alert that is newer or
    higher than the one that it spoke of, not when that one is resolved.
    """
    shown = sorted(subject for subject in subjects if subject.kind is not AlertKind.SPIKE)
    if not shown:
        return
    highest: dict[Subject, Said] = {}
    rows = await work.session.execute(
        select(Alert, Metric.name)
        .outerjoin(Metric, and_(Metric.key == Alert.subject, Alert.kind == AlertKind.USAGE))
        .where(
            Alert.resolved_at.is_(None),
            tuple_(Alert.account_id, Alert.kind, Alert.subject).in_([tuple(subject) for subject in shown]),
        )
        .order_by(Alert.threshold, Alert.sequence)
    )
    budgets = await _read_budgets(work, shown)
    for alert, name in rows:
        if alert.level in SEVERITIES:
            about = (
                {"metric": alert.subject, "metricName": name, "used": alert.used, "limit": alert.ceiling}
                if alert.kind is AlertKind.USAGE
                else _describe(accounts[alert.account_id], budgets[alert.subject], alert)
            )
            highest[Subject(alert.account_id, alert.kind, alert.subject)] = Said(
                severity=SEVERITIES[alert.level],
                dismissible=True,
                params={**about, "threshold": alert.threshold, "level": alert.level, "raisedAt": alert.raised_at},
            )
    await settle_banners(work, accounts, shown, highest, lambda now, then: _place(now) > _place(then))


async def settle_banners(
    work: Work,
    accounts: Mapping[UUID, BillingAccount],
    subjects: Collection[Subject],
    said: Mapping[Subject, Said],
    is_news: Callable[[Mapping[str, Any], Mapping[str, Any]], bool],
) -> None:
    """Have the banners of subjects say what they are to say by now, and take those away that have nothing to say.

    `is_news` tells of what is said now and was said before, whether that brings a banner back that was put away.
    """
    kinds = {code: kind for kind, code in CODES.items()}
    standing = {
        Subject(notice.account_id, kinds[notice.code], notice.subject): notice
        for notice in await work.session.scalars(
            select(Notice).where(
                tuple_(Notice.account_id, Notice.code, Notice.subject).in_(
                    [(account_id, CODES[kind], subject) for account_id, kind, subject in subjects]
                )
            )
        )
    }
    for subject in sorted(subjects):
        account, notice, saying = accounts[subject.account_id], standing.get(subject), said.get(subject)
        if notice is None and saying is not None:
            raise_new(work, account, CODES[subject.kind], subject.subject, saying)
        elif notice is not None and saying is not None:
            change_notice(work, account, notice, saying, is_news=is_news(saying.params, notice.params))
        elif notice is not None:
            await clear_standing(work, account, notice)


async def _read_budgets(work: Work, subjects: Collection[Subject]) -> dict[str, Budget]:
    ids = [UUID(subject.subject) for subject in subjects if subject.kind is AlertKind.BUDGET]
    if not ids:
        return {}
    return {str(row.id): row for row in await work.session.scalars(select(Budget).where(Budget.id.in_(ids)))}


def _describe(account: BillingAccount, budget: Budget, alert: Alert) -> dict[str, Any]:
    return {
        "budgetId": alert.subject,
        "scope": budget.scope,
        "subject": budget.subject,
        "spentMinor": alert.used,
        "limitMinor": alert.ceiling,
        "currency": account.currency,
    }


def _place(params: Mapping[str, Any]) -> tuple[datetime, int]:
    """Which of two alerts of a metric is the news: the later one, of one moment the higher."""
    raised_at = params["raisedAt"]
    return raised_at if isinstance(raised_at, datetime) else datetime.fromisoformat(raised_at), params["threshold"]
