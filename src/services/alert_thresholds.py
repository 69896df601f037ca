"""The thresholds that accounts set for themselves, beside the built-in ones: they hold from the moment they are set."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete, select

from ..database import ReadSession, Work
from ..models import AlertKind, AlertThreshold, BillingAccount, Metric, Subscription
from .access import Principal
from .accounts import lock_account
from .alerts import evaluate, read_own_thresholds, read_usage, resolve_thresholds
from .edits import record_update
from .errors import InvalidInput, NotFound, Refusals
from .permissions import Action, require_action
from .rules.thresholds import BUILT_IN, find_faults
from .rules.transitions import RUNNING
from .usage import load_figures, tell_usage

MAX_OWN = 10
"""How many thresholds of its own an account has for a metric."""
MAX_KEY_LENGTH = 100


async def set_thresholds(
    work: Work, principal: Principal, account_id: UUID, metric_key: str, percents: Sequence[int]
) -> BillingAccount:
    """Replace an account's own thresholds of a metric. Whose account it is, is the caller's to check.

    At once: what is no more is resolved, and what the figure has reached already is raised, ascending. A built-in
    threshold among them changes nothing, since it is there anyway.
    """
    account = await lock_account(work, account_id)
    await require_action(work, principal, account, Action.SET_ALERT_THRESHOLDS)
    metric = None
    if len(metric_key) <= MAX_KEY_LENGTH and metric_key.isprintable():
        metric = await work.session.scalar(select(Metric).where(Metric.key == metric_key))
    if metric is None:
        raise NotFound("There is no metric with this key: `metrics` lists them.", ["input", "metric"])
    wanted = _check(percents)
    before = list((await read_own_thresholds(work.session, [account.id])).get((account.id, metric.key), ()))
    if wanted == before:
        return account
    gone = sorted(set(before) - set(wanted))
    await work.session.execute(
        delete(AlertThreshold).where(
            AlertThreshold.account_id == account.id,
            AlertThreshold.kind == AlertKind.USAGE,
            AlertThreshold.subject == metric.key,
            AlertThreshold.percent.in_(gone),
        )
    )
    now = work.clock.now_for(account)
    work.session.add_all(
        AlertThreshold(account_id=account.id, kind=AlertKind.USAGE, subject=metric.key, percent=percent, set_at=now)
        for percent in sorted(set(wanted) - set(before))
    )
    record_update(
        work,
        account,
        "alert_thresholds.set",
        f"metric:{metric.key}",
        changed=["usage"],
        before={"percents": before},
        after={"percents": wanted},
    )
    await work.session.flush()
    await resolve_thresholds(work, account, AlertKind.USAGE, metric.key, gone)
    await _evaluate(work, account, metric)
    return account


def _check(percents: Sequence[int]) -> list[int]:
    """What is an account's own among the percents given, ascending. Whatever is wrong is told at once."""
    path = ["input", "percents"]
    if len(percents) > MAX_OWN + len(BUILT_IN):
        raise InvalidInput(f"A metric has at most {MAX_OWN} thresholds beside the built-in ones.", path)
    faults = find_faults(percents)
    if faults:
        raise Refusals([InvalidInput(told, [*path, str(place)]) for place, told in faults])
    own = sorted(set(percents) - set(BUILT_IN))
    if len(own) > MAX_OWN:
        raise InvalidInput(f"A metric has at most {MAX_OWN} thresholds beside the built-in ones.", path)
    return own


async def _evaluate(work: Work, account: BillingAccount, metric: Metric) -> None:
    """Raise what is reached already: nothing on an account whose subscription is over."""
    subscription = await work.session.scalar(select(Subscription).where(Subscription.account_id == account.id))
    if account.closed_at is not None or (subscription is not None and subscription.status not in RUNNING):
        return
    figures = await load_figures(ReadSession(work.session), [account.id], work.clock.now())
    for figure in figures[account.id]:
        if figure.metric.key == metric.key:
            await evaluate(work, [read_usage(account, metric, figure.period, figure.used, figure.limit)])
            await tell_usage(work, account, metric.key, figure.period)  # its level may be another
