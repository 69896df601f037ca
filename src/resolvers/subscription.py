"""The fields of Subscription: rows read from a cursor on, woken by the bus. A session per look, none per stream."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from typing import Annotated, Any, TypeAlias

import strawberry

from .. import models
from ..models import BillingAccount as AccountRow
from ..schema.billing import (
    AccountChange,
    Alert,
    BillingAccount,
    Budget,
    Invoice,
    MetricUsage,
    Notice,
    PaymentMethod,
    PlanSubscription,
    Transaction,
    check_metrics,
    show_budget,
    usage_of,
)
from ..schema.enums import ChangeKind
from ..schema.exports import Export
from ..schema.node import Node, key_of
from ..services.access import Right
from ..services.changes import BILLING_KINDS, Change, check_reader, follow, right_over
from ..services.cursors import decode_change
from ..services.errors import ErrorCode, RequestRefused
from ..services.notices import is_operator_of
from .access import require_right, subscription
from .context import Info
from .showing import show_account, show_notice

AccountArgument: TypeAlias = Annotated[strawberry.ID, strawberry.argument(description="Which account.")]
ResumeArgument: TypeAlias = Annotated[
    str | None,
    strawberry.argument(
        description="The cursor of the last thing seen: what came since is sent first; nothing is missed or sent twice."
    ),
]


async def _open(info: Info, account_id: str, right: Right = Right.READ_USAGE) -> AccountRow:
    """The account to stream, for those who hold the right over it; another tenant's is the same as none."""
    if not info.context.following.is_shared:
        await info.context.authenticate()
    key = key_of(account_id, "BillingAccount")
    if key is None or info.context.principal.role_in(key) is None:
        raise RequestRefused(ErrorCode.NOT_FOUND, "There is no such account for you.")
    require_right(info, right, key)
    account = await info.context.load.account(key)
    if account is None:
        raise RequestRefused(ErrorCode.NOT_FOUND, "There is no such account for you.")
    return account


async def _follow(
    info: Info, account: AccountRow, after: str | None, kinds: Collection[ChangeKind]
) -> AsyncGenerator[Change]:
    context, following = info.context, info.context.following
    following.account_id, following.right = account.id, right_over(kinds)

    def narrow() -> None:
        # Whoever reads, the answers show one account: nothing of the caller beyond it gets into them, so that those
        # who are equal there can be given the same answer.
        context.caller = following.reader = context.principal.within(account.id)

    async def may_go_on() -> None:
        await context.authenticate()
        check_reader(context.principal, account.id, right_over(kinds))
        narrow()

    narrow()
    place = None if after is None else decode_change(account.id, after)
    async for change in follow(
        context.database,
        context.bus,
        account,
        after=place,
        kinds=kinds,
        may_go_on=following.may_go_on or may_go_on,
        following=following,
    ):
        if change.for_operators and not is_operator_of(context.principal, account.id):
            continue
        if change.is_about_money and not context.principal.may(Right.READ_BILLING, account.id):
            continue
        context.forget()
        yield change


async def _shorthand(
    info: Info, account_id: str, after: str | None, kind: ChangeKind
) -> AsyncGenerator[tuple[AccountRow, Change]]:
    """The changes of one kind. A snapshot tells such a stream nothing, and a gap is its end."""
    account = await _open(info, account_id, right_over({kind}))
    async for change in _follow(info, account, after, {kind}):
        if change.kind is ChangeKind.GAP:
            raise RequestRefused(
                ErrorCode.CURSOR_EXPIRED, "The cursor is older than what is kept: read the page again, then subscribe."
            )
        if change.kind is kind:
            yield account, change


Find: TypeAlias = Callable[[Info, AccountRow, Change], Awaitable[Node | None]]


def _by_row(model: type[models.Base], show: Callable[[Any, int], Node]) -> Find:
    """What changed, by its row as it is now."""

    async def find(info: Info, account: AccountRow, change: Change) -> Node | None:  # noqa: ARG001  # as all of them
        assert change.subject_id is not None, "its event names it"
        row = await info.context.load.row(model, change.subject_id)
        return None if row is None else show(row, change.sequence)

    return find


async def _find_usage(info: Info, account: AccountRow, change: Change) -> MetricUsage | None:
    assert change.metric_key is not None, "usage names its metric"
    return usage_of(await info.context.load.figures(account.id), change.metric_key, change.sequence)


async def _find_notice(info: Info, account: AccountRow, change: Change) -> Notice | None:  # noqa: ARG001
    assert change.subject_id is not None, "its event names it"
    row = await info.context.load.row(models.Notice, change.subject_id)
    return None if row is None or row.dismissed_at is not None else await show_notice(info, row)


async def _find_budget(info: Info, account: AccountRow, change: Change) -> Budget | None:  # noqa: ARG001
    assert change.subject_id is not None, "its event or its row names it"
    row = await info.context.load.row(models.Budget, change.subject_id)
    return None if row is None else await show_budget(info.context, row, change.sequence)


async def _find_account(info: Info, account: AccountRow, change: Change) -> BillingAccount:  # noqa: ARG001
    return await show_account(info, account.id)


FINDERS: dict[ChangeKind, Find] = {
    ChangeKind.USAGE: _find_usage,
    ChangeKind.ALERT: _by_row(models.Alert, Alert.of),
    ChangeKind.INVOICE: _by_row(models.Invoice, Invoice.of),
    ChangeKind.TRANSACTION: _by_row(models.Transaction, Transaction.of),
    ChangeKind.SUBSCRIPTION: _by_row(models.Subscription, PlanSubscription.of),
    ChangeKind.PAYMENT_METHOD: _by_row(models.PaymentMethod, lambda row, _: PaymentMethod.of(row)),
    ChangeKind.EXPORT: _by_row(models.Export, Export.of),
    ChangeKind.NOTICE: _find_notice,
    ChangeKind.BUDGET: _find_budget,
    ChangeKind.COMPANY: _find_account,
    ChangeKind.MEMBER: _find_account,
    ChangeKind.RECOMMENDATION: _find_account,
}
"""What changed, as it is now, by the kind of change. SNAPSHOT and GAP are about nothing that changed."""


async def _find_node(info: Info, account: AccountRow, change: Change) -> Node | None:
    """What changed, as it is now; none where it is gone by now."""
    find = FINDERS.get(change.kind)
    return None if find is None else await find(info, account, change)


@strawberry.type(description="What can be followed live. Each event carries a cursor to resume from.")
class Subscription:
    """The root of subscriptions."""

    @subscription(Right.READ_USAGE)
    async def account_changed(
        self,
        info: Info,
        account_id: AccountArgument,
        after: ResumeArgument = None,
        kinds: Annotated[
            list[ChangeKind] | None,
            strawberry.argument(description="Only these kinds; all that the caller may see when nothing is said."),
        ] = None,
    ) -> AsyncGenerator[AccountChange, None]:
        """All changes of an account in one stream. Without `after` it starts with a SNAPSHOT: read the page then."""
        account = await _open(info, account_id)
        if kinds is not None and not set(kinds) - {ChangeKind.SNAPSHOT, ChangeKind.GAP}:
            told = "`kinds` names at least one kind of change: left out, all are sent. SNAPSHOT and GAP come anyway."
            raise RequestRefused(ErrorCode.BAD_USER_INPUT, told)
        if kinds is not None:
            chosen = set(kinds)
            require_right(info, right_over(chosen), account.id)
        else:
            may_see_money = info.context.principal.may(Right.READ_BILLING, account.id)
            chosen = set(ChangeKind) - (set() if may_see_money else BILLING_KINDS)
        async for change in _follow(info, account, after, chosen):
            yield AccountChange.of(change, account.id, await _find_node(info, account, change))

    @subscription(Right.READ_USAGE)
    async def alert_raised(
        self, info: Info, account_id: AccountArgument, after: ResumeArgument = None
    ) -> AsyncGenerator[Alert, None]:
        """Each alert as it is raised; without `after` only those raised from now on."""
        async for _, change in _shorthand(info, account_id, after, ChangeKind.ALERT):
            assert change.subject_id is not None, "alerts name theirs"
            row = await info.context.load.row(models.Alert, change.subject_id)
            # Raised by this change, not acknowledged or resolved by it.
            if row is not None and row.sequence == change.sequence:
                yield Alert.of(row)

    @subscription(Right.READ_USAGE)
    async def alert_changed(
        self, info: Info, account_id: AccountArgument, after: ResumeArgument = None
    ) -> AsyncGenerator[Alert, None]:
        """Each alert as it is raised, acknowledged or resolved; without `after` only changes from now on."""
        async for account, change in _shorthand(info, account_id, after, ChangeKind.ALERT):
            found = await _find_node(info, account, change)
            if isinstance(found, Alert):
                yield found

    @subscription(Right.READ_USAGE)
    async def usage_changed(
        self,
        info: Info,
        account_id: AccountArgument,
        after: ResumeArgument = None,
        metrics: Annotated[
            list[str] | None, strawberry.argument(description="Only these metrics; all when nothing is said.")
        ] = None,
    ) -> AsyncGenerator[MetricUsage, None]:
        """Each figure as it moves, at most four times a second; the last state is always sent."""
        if metrics is not None:
            opened = await _open(info, account_id)
            if not metrics:
                told = "`metrics` names at least one metric: left out, all are sent."
                raise RequestRefused(ErrorCode.BAD_USER_INPUT, told)
            check_metrics(metrics, await info.context.load.figures(opened.id))
        async for account, change in _shorthand(info, account_id, after, ChangeKind.USAGE):
            if metrics is not None and change.metric_key not in metrics:
                continue
            found = await _find_node(info, account, change)
            if isinstance(found, MetricUsage):
                yield found

    @subscription(Right.READ_BILLING)
    async def budget_changed(
        self, info: Info, account_id: AccountArgument, after: ResumeArgument = None
    ) -> AsyncGenerator[Budget, None]:
        """Each budget as its spend or it itself changes, at most four times a second; the last state is always sent."""
        async for account, change in _shorthand(info, account_id, after, ChangeKind.BUDGET):
            found = await _find_node(info, account, change)
            if isinstance(found, Budget):
                yield found

    @subscription(Right.READ_BILLING)
    async def invoice_changed(
        self, info: Info, account_id: AccountArgument, after: ResumeArgument = None
    ) -> AsyncGenerator[Invoice, None]:
        """Each invoice as it is finalised, paid, not paid or withdrawn; without `after` only changes from now on."""
        async for account, change in _shorthand(info, account_id, after, ChangeKind.INVOICE):
            found = await _find_node(info, account, change)
            if isinstance(found, Invoice):
                yield found

    @subscription(Right.READ_BILLING)
    async def transaction_changed(
        self, info: Info, account_id: AccountArgument, after: ResumeArgument = None
    ) -> AsyncGenerator[Transaction, None]:
        """Each payment, refund and dispute as it moves; without `after` only changes from now on."""
        async for account, change in _shorthand(info, account_id, after, ChangeKind.TRANSACTION):
            found = await _find_node(info, account, change)
            if isinstance(found, Transaction):
                yield found

    @subscription(Right.READ_BILLING)
    async def subscription_changed(
        self, info: Info, account_id: AccountArgument, after: ResumeArgument = None
    ) -> AsyncGenerator[PlanSubscription, None]:
        """The account's plan as it starts, changes or ends; without `after` only changes from now on."""
        async for account, change in _shorthand(info, account_id, after, ChangeKind.SUBSCRIPTION):
            found = await _find_node(info, account, change)
            if isinstance(found, PlanSubscription):
                yield found

    @subscription(Right.READ_BILLING)
    async def export_changed(
        self, info: Info, account_id: AccountArgument, after: ResumeArgument = None
    ) -> AsyncGenerator[Export, None]:
        """Each export as it is written, becomes ready or fails; without `after` only changes from now on."""
        async for account, change in _shorthand(info, account_id, after, ChangeKind.EXPORT):
            found = await _find_node(info, account, change)
            if isinstance(found, Export):
                yield found
