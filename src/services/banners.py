"""The banner of a metric that is near its limit: one per metric, of the highest alert that is open."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import select, tuple_

from ..database import Work
from ..models import Alert, AlertKind, AlertLevel, BillingAccount, Metric, Notice, NoticeSeverity
from .notices import Said, change_notice, clear_standing, raise_new

USAGE_THRESHOLD = "USAGE_THRESHOLD"
SEVERITIES = {
    AlertLevel.WARNING: NoticeSeverity.WARNING,
    AlertLevel.UPGRADE_SUGGESTION: NoticeSeverity.WARNING,
    AlertLevel.URGENT: NoticeSeverity.CRITICAL,
    AlertLevel.LIMIT_REACHED: NoticeSeverity.CRITICAL,
}
"""How loud the banner of a level is. A level that is not here makes none."""


class Subject(NamedTuple):
    """A metric of an account."""

    account_id: UUID
    metric_key: str


async def put_banners(work: Work, accounts: Mapping[UUID, BillingAccount], subjects: Collection[Subject]) -> None:
    """Put the banners of metrics right, after alerts of locked accounts were raised or resolved.

    Two statements read whatever number of them. What was put away comes back for an alert that is newer or higher than
    the one that it spoke of, not when that one is resolved.
    """
    if not subjects:
        return
    keys = [tuple(subject) for subject in sorted(subjects)]
    highest: dict[Subject, Said] = {}
    rows = await work.session.execute(
        select(
            Alert.account_id,
            Alert.subject,
            Alert.threshold,
            Alert.level,
            Alert.used,
            Alert.ceiling,
            Alert.raised_at,
            Metric.name,
        )
        .join(Metric, Metric.key == Alert.subject)
        .where(
            Alert.kind == AlertKind.USAGE,
            Alert.resolved_at.is_(None),
            tuple_(Alert.account_id, Alert.subject).in_(keys),
        )
        .order_by(Alert.threshold, Alert.sequence)
    )
    for account_id, metric_key, threshold, level, used, ceiling, raised_at, name in rows:
        if level in SEVERITIES:
            highest[Subject(account_id, metric_key)] = Said(
                severity=SEVERITIES[level],
                dismissible=True,
                params={
                    "metric": metric_key,
                    "metricName": name,
                    "threshold": threshold,
                    "level": level,
                    "used": used,
                    "limit": ceiling,
                    "raisedAt": raised_at,
                },
            )
    standing = {
        Subject(notice.account_id, notice.subject): notice
        for notice in await work.session.scalars(
            select(Notice).where(Notice.code == USAGE_THRESHOLD, tuple_(Notice.account_id, Notice.subject).in_(keys))
        )
    }
    for subject in sorted(subjects):
        account, notice, said = accounts[subject.account_id], standing.get(subject), highest.get(subject)
        if notice is None and said is not None:
            raise_new(work, account, USAGE_THRESHOLD, subject.metric_key, said)
        elif notice is not None and said is not None:
            change_notice(work, account, notice, said, is_news=_place(said.params) > _place(notice.params))
        elif notice is not None:
            await clear_standing(work, account, notice)


def _place(params: Mapping[str, Any]) -> tuple[datetime, int]:
    """Which of two alerts of a metric is the news: the later one, of one moment the higher."""
    raised_at = params["raisedAt"]
    return raised_at if isinstance(raised_at, datetime) else datetime.fromisoformat(raised_at), params["threshold"]
