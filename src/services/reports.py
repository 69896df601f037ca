"""Usage reports: what a page of an account's usage shows."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import and_, select

from ..database import ReadSession
from ..models import BillingAccount, Company, Counter, Export, Issuer, Metric, MetricKind, UsageRating
from .documents import choose_size, language_of, name_buyer, name_seller
from .papers import PaperKind, ReportMetric, ReportPeriod, UsageReport
from .rules.periods import Period
from .series import load_series
from .usage import UsageFigure, load_figures


async def load_report(
    session: ReadSession,
    account: BillingAccount,
    metrics: Sequence[Metric],
    buckets: Sequence[Period],
    export: Export,
    now: datetime,
) -> UsageReport:
    """The report of an account's usage over some buckets, as it stands now."""
    assert export.granularity is not None, "what has buckets says how wide they are"
    zone = ZoneInfo(account.timezone)
    issuer, company = (
        await session.execute(
            select(Issuer, Company)
            .select_from(Issuer)
            .outerjoin(Company, Company.account_id == account.id)
            .where(Issuer.id == account.issuer_id)
        )
    ).one()
    figures = {figure.metric.key: figure for figure in (await load_figures(session, [account.id], now))[account.id]}
    series = await load_series(session, account.id, metrics, export.granularity, buckets) if buckets else {}
    periods = await _load_periods(session, account, figures, export, now)
    return UsageReport(
        kind=PaperKind.USAGE_REPORT,
        number=f"usage-{export.id}",
        language=language_of(account),
        locale=account.locale,
        size=choose_size(company),
        issued_on=now.astimezone(zone).date(),
        issuer=name_seller(issuer),
        bill_to=name_buyer(account, company),
        account_name=account.name,
        zone=account.timezone,
        granularity=export.granularity,
        starts=tuple(bucket.start.astimezone(zone) for bucket in buckets),
        starts_on=(buckets[0].start if buckets else export.start_at).astimezone(zone).date(),
        ends_on=_last_day(buckets[-1].end if buckets else export.end_at, zone),
        metrics=tuple(
            ReportMetric(
                name=metric.name,
                unit=metric.unit,
                is_gauge=metric.kind is MetricKind.GAUGE,
                quantities=tuple(series.get(metric.key, ())),
                limit=figures[metric.key].limit,
                periods=tuple(periods.get(metric.key, ())),
            )
            for metric in metrics
        ),
        footer=company.footer if company else None,
    )


async def _load_periods(
    session: ReadSession, account: BillingAccount, figures: dict[str, UsageFigure], export: Export, now: datetime
) -> dict[str, list[ReportPeriod]]:
    """How each counter came out in the usage periods that touch an export's range, the first one first."""
    zone = ZoneInfo(account.timezone)
    rows = await session.execute(
        select(Counter, UsageRating)
        .outerjoin(
            UsageRating,
            and_(
                UsageRating.account_id == Counter.account_id,
                UsageRating.metric_key == Counter.metric_key,
                UsageRating.period_start == Counter.period_start,
            ),
        )
        .where(
            Counter.account_id == account.id,
            Counter.period_end > export.start_at,
            Counter.period_start < export.end_at,
        )
        .order_by(Counter.metric_key, Counter.period_start)
    )
    found: dict[str, list[ReportPeriod]] = {}
    for counter, rating in rows:
        assert counter.period_end is not None, "a gauge's figure has no end, and was not asked for"
        is_running = counter.period_start <= now < counter.period_end
        limit = figures[counter.metric_key].limit if is_running else None if rating is None else rating.limit_quantity
        found.setdefault(counter.metric_key, []).append(
            ReportPeriod(
                starts_on=counter.period_start.astimezone(zone).date(),
                ends_on=_last_day(counter.period_end, zone),
                used=counter.used,
                limit=limit,
                knows_limit=is_running or rating is not None,
                is_running=is_running,
            )
        )
    return found


def _last_day(end: datetime, zone: ZoneInfo) -> date:
    return (end - timedelta(seconds=1)).astimezone(zone).date()
