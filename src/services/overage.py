"""What an account lets happen above a limit: its policy for a metric, and what it approves where it is asked."""

from uuid import UUID

from ..database import ReadSession, Work
from ..models import BillingAccount, OverageApproval, OveragePolicy, OverageSetting
from .access import Principal, Right
from .accounts import lock_account
from .edits import record_update
from .errors import Conflict, Forbidden, InvalidInput, NotFound, PriceNotAvailable
from .notices import clear_notice
from .permissions import Action, require_action
from .rules.money import MAX_AMOUNT_MINOR
from .usage import UsageFigure, load_figures, tell_usage

APPROVAL_NOTICE = "OVERAGE_APPROVAL"
POLICY, BLOCKS, METRIC = ["input", "policy"], ["input", "blocks"], ["input", "metric"]


async def set_overage_policy(
    work: Work, principal: Principal, account_id: UUID, metric_key: str, policy: OveragePolicy
) -> BillingAccount:
    """Choose what happens above a metric's limit. It holds at once; what was accepted before stays accepted."""
    account = await lock_account(work, account_id)
    await require_action(work, principal, account, Action.SET_OVERAGE_POLICY)
    figure = await _find_figure(work, account, metric_key)
    is_operator = principal.may(Right.OPERATE, account.id)
    if policy is OveragePolicy.ALLOW and not is_operator:
        raise Forbidden("Only operators let usage pass a limit without charge.", POLICY)
    if figure.metric.overage_block is None and not is_operator:
        raise Forbidden(f"{figure.metric.name}: the limit always holds. Only operators change that.", METRIC)
    if policy in (OveragePolicy.CHARGE, OveragePolicy.ASK) and not _has_price(figure):
        raise PriceNotAvailable(
            f"What passes the limit of {figure.metric.name} has no price in {account.currency}: BLOCK is left.", POLICY
        )
    row = await work.session.get(OverageSetting, (account.id, metric_key))
    before = row.policy if row else None
    if before is policy:
        return account
    now = work.clock.now_for(account)
    if row is None:
        work.session.add(OverageSetting(account_id=account.id, metric_key=metric_key, policy=policy, changed_at=now))
    else:
        row.policy, row.changed_at = policy, now
    if policy is not OveragePolicy.ASK:
        await clear_notice(work, account, APPROVAL_NOTICE, metric_key)
    record_update(
        work,
        account,
        "usage.overage_policy_set",
        f"metric:{metric_key}",
        changed=["overagePolicy"],
        before={"policy": before},
        after={"policy": policy},
    )
    await tell_usage(work, account, metric_key, figure.period)
    return account


async def approve_overage(
    work: Work, principal: Principal, account_id: UUID, metric_key: str, blocks: int | None
) -> BillingAccount:
    """Let so many blocks in all pass a metric's limit in the running usage period; without a number all of it."""
    account = await lock_account(work, account_id)
    await require_action(work, principal, account, Action.APPROVE_OVERAGE)
    figure = await _find_figure(work, account, metric_key)
    if figure.policy is not OveragePolicy.ASK or figure.period is None:
        raise Conflict(
            f"Nobody is asked about {figure.metric.name}: its policy in force is {figure.policy}. "
            "`setOveragePolicy` with ASK changes that, on a paid plan.",
            METRIC,
        )
    if blocks is not None:
        _check_blocks(figure, blocks)
    key = (account.id, metric_key, figure.period.start)
    now = work.clock.now_for(account)
    row = await work.session.get(OverageApproval, key)
    before = {} if row is None else {"blocks": row.blocks}
    if row is None:
        row = OverageApproval(
            account_id=account.id,
            metric_key=metric_key,
            period_start=figure.period.start,
            blocks=blocks,
            approved_by=work.actor.name,
            approved_at=now,
        )
        work.session.add(row)
    else:
        row.blocks, row.approved_by, row.approved_at = blocks, work.actor.name, now
    await clear_notice(work, account, APPROVAL_NOTICE, metric_key)
    record_update(
        work,
        account,
        "usage.overage_approved",
        f"metric:{metric_key}",
        changed=["overageApproval"],
        before=before,
        after={"blocks": blocks, "periodStart": figure.period.start.isoformat()},
    )
    await tell_usage(work, account, metric_key, figure.period)
    return account


def _check_blocks(figure: UsageFigure, blocks: int) -> None:
    if blocks < 1:
        raise InvalidInput("`blocks` is 1 or more; leave it out for the rest of the period.", BLOCKS)
    if blocks * (figure.overage_price_minor or 0) > MAX_AMOUNT_MINOR:
        raise InvalidInput(f"That many blocks cost more than one invoice line holds ({MAX_AMOUNT_MINOR}).", BLOCKS)
    if blocks < figure.overage_blocks:
        raise InvalidInput(
            f"{figure.overage_blocks} blocks are in use already: `blocks` counts all of the period, so approve at "
            "least those.",
            BLOCKS,
        )


async def _find_figure(work: Work, account: BillingAccount, metric_key: str) -> UsageFigure:
    await work.session.flush()
    figures = (await load_figures(ReadSession(work.session), [account.id], work.clock.now()))[account.id]
    found = next((figure for figure in figures if figure.metric.key == metric_key), None)
    if found is None:
        keys = ", ".join(figure.metric.key for figure in figures)
        raise NotFound(f"There is no metric {metric_key[:64]!r}: known are {keys}.", METRIC)
    return found


def _has_price(figure: UsageFigure) -> bool:
    return figure.metric.overage_block is not None and figure.overage_price_minor is not None
