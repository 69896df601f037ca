"""The fields of Query."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import date, datetime, timedelta
from functools import cache
from typing import Annotated, Any, cast
from uuid import UUID

import strawberry
from strawberry import Schema
from strawberry.schema import BaseSchema

from .. import VERSION, models
from ..schema.audit import AuditEntry
from ..schema.billing import (
    AddOn,
    Alert,
    ApiKey,
    BillingAccount,
    CreditNote,
    CurrencyArgument,
    Invite,
    Invoice,
    InvoiceLine,
    LedgerEntry,
    Member,
    Metric,
    MetricUsage,
    Notice,
    PaymentMethod,
    Plan,
    PlanSubscription,
    Quote,
    Recommendation,
    RefundRequest,
    Reservation,
    TestClock,
    Transaction,
    show_budget,
    usage_of,
)
from ..schema.catalogue import TaxTableRow
from ..schema.contacts import Contact
from ..schema.coordinates import list_deprecations, read_removal
from ..schema.enums import RefundStatus, Role, SubscriptionStatus
from ..schema.events import BillingEvent
from ..schema.exports import Export
from ..schema.fields import said
from ..schema.keys import FieldUse
from ..schema.node import NOBODY, GlobalId, Node, decode_id, key_of
from ..schema.paging import After, Before, Connection, First, Last
from ..schema.parked import ParkedAccount
from ..schema.viewer import ServerInfo, Viewer, ViewerAccount
from ..schema.webhooks import WebhookDelivery, WebhookEndpoint
from ..services import accounts, catalogue, endpoints, events, tax_tables
from ..services.access import Principal, Right
from ..services.due_work import list_parked
from ..services.errors import ErrorCode, RequestRefused
from ..services.keys import list_operators_keys, may_see
from ..services.notices import is_meant_for
from ..services.paging import check_window, read_slice
from ..services.refundables import ORDER as REQUESTS_ORDER
from ..services.refundables import list_requests
from ..services.relations import OPENINGS_OF_KEY
from ..services.uses import MAX_SHOWN, FieldUsage, list_field_usage
from .access import query, require_operator
from .context import Info
from .showing import show_notice

MAX_NODES = 100
MAX_VIEWER_ACCOUNTS = 100
MAX_PREFIX = 200
USAGE_DAYS = timedelta(days=30)

Find = Callable[[Info, GlobalId], Awaitable[Node | None]]


def _may(info: Info, right: Right, account_id: Any) -> bool:
    return info.context.principal.may(right, account_id)


def _owned(model: type[Any], right: Right, show: Callable[[Any, Info], Awaitable[Node | None] | Node | None]) -> Find:
    """Finds a row by id for those who hold the right over its account; for others it is not there."""

    async def find(info: Info, id_: GlobalId) -> Node | None:
        key = id_.uuid()
        row = None if key is None else await info.context.load.row(model, key)
        if row is None or not _may(info, right, row.account_id):
            return None
        shown = show(row, info)
        return await shown if isinstance(shown, Awaitable) else shown

    return find


async def _find_account(info: Info, id_: GlobalId) -> BillingAccount | None:
    key = id_.uuid()
    # Asked before it is read: another tenant's account looks like none, also to the clock.
    row = await info.context.load.account(key) if key is not None and _may(info, Right.READ_USAGE, key) else None
    return None if row is None else BillingAccount.of(row)


async def _find_usage(info: Info, id_: GlobalId) -> MetricUsage | None:
    account_key, _, metric_key = id_.key.partition(":")
    account = await _find_account(info, GlobalId("BillingAccount", account_key))
    return None if account is None else usage_of(await info.context.load.figures(account.account_id), metric_key)


async def _find_metric(info: Info, id_: GlobalId) -> Metric | None:
    row = await info.context.load.metric(id_.key)
    return None if row is None else Metric.of(row)


async def _find_plan(info: Info, id_: GlobalId) -> Plan | None:
    offer = await info.context.load.offer(id_.key)
    private_to = None if offer is None else offer.plan.private_account_id
    if offer is None or (private_to is not None and not _may(info, Right.READ_BILLING, private_to)):
        return None
    return Plan.of(offer)


async def _find_add_on(info: Info, id_: GlobalId) -> AddOn | None:
    row = await info.context.load.add_on(id_.key)
    return None if row is None else AddOn.of(row)


async def _find_recommendation(info: Info, id_: GlobalId) -> Recommendation | None:
    account_key, _, wanted = id_.key.partition(":")
    account_id = GlobalId("BillingAccount", account_key).uuid()
    if account_id is None or not _may(info, Right.READ_BILLING, account_id):
        return None
    if await info.context.load.account(account_id) is None:
        return None
    found = await info.context.load.recommendations(account_id)
    return next((Recommendation.of(item) for item in found if item.key == wanted), None)


async def _show_line(row: models.InvoiceLine, info: Info) -> InvoiceLine:
    invoice = await info.context.load.row(models.Invoice, row.invoice_id)
    assert invoice is not None, "a foreign key guarantees the invoice"
    return InvoiceLine.of(row, invoice.currency)


async def _show_alert(row: models.Alert, info: Info) -> Alert | None:
    needed = Right.READ_BILLING if row.kind is models.AlertKind.BUDGET else Right.READ_USAGE
    return Alert.of(row) if _may(info, needed, row.account_id) else None


async def _show_notice(row: models.Notice, info: Info) -> Notice | None:
    return await show_notice(info, row) if is_meant_for(info.context.principal, row) else None


async def _show_quote(row: models.Quote, info: Info) -> Quote:
    standing = await info.context.load.standing(row.account_id)
    assert standing is not None, "a foreign key guarantees the account"
    return Quote.of(await info.context.load.quote_view(standing, row), standing.account)


async def _find_test_clock(info: Info, id_: GlobalId) -> TestClock | None:
    key = id_.uuid()
    row = await info.context.load.row(models.TestClock, key) if key is not None and _may_operate(info) else None
    return None if row is None else TestClock.of(row)


async def _find_endpoint(info: Info, id_: GlobalId) -> WebhookEndpoint | None:
    key = id_.uuid()
    row = None if key is None else await info.context.load.row(models.WebhookEndpoint, key)
    # What is of no account is the operators'.
    if row is None or row.removed_at is not None or not _may(info, Right.READ_BILLING, row.account_id or NOBODY):
        return None
    return WebhookEndpoint.of(row)


async def _find_delivery(info: Info, id_: GlobalId) -> WebhookDelivery | None:
    key = id_.uuid()
    row = None if key is None else await info.context.load.row(models.WebhookDelivery, key)
    if row is None or not _may(info, Right.READ_BILLING, row.account_id or NOBODY):
        return None
    return WebhookDelivery.of(row)


async def _show_event(row: models.OutboxEvent, info: Info) -> BillingEvent | None:
    hidden = events.is_for_operators(row) and info.context.principal.role_in(row.account_id) is not Role.OPERATOR
    return None if hidden or row.position is None else BillingEvent.of(row)


def _may_operate(info: Info) -> bool:
    principal = info.context.principal
    return principal.is_operator and principal.may(Right.OPERATE)


async def _find_owned_or_ours(info: Info, model: type[Any], id_: GlobalId) -> Any:
    """A row that is of an account, or of none: that is the operators'."""
    key = id_.uuid()
    row = None if key is None else await info.context.load.row(model, key)
    if row is None:
        return None
    may = _may_operate(info) if row.account_id is None else _may(info, Right.READ_BILLING, row.account_id)
    return row if may else None


async def _find_export(info: Info, id_: GlobalId) -> Export | None:
    row = await _find_owned_or_ours(info, models.Export, id_)
    return None if row is None else Export.of(row)


async def _find_audit_entry(info: Info, id_: GlobalId) -> AuditEntry | None:
    row = await _find_owned_or_ours(info, models.AuditEntry, id_)
    return None if row is None else AuditEntry.of(row)


async def _find_key(info: Info, id_: GlobalId) -> ApiKey | None:
    key = id_.uuid()
    row = None if key is None else await info.context.load.row(models.ApiKey, key)
    if row is None:
        return None
    openings = await info.context.load.related(OPENINGS_OF_KEY, row.id)
    return ApiKey.of(row) if may_see(info.context.principal, row, openings) else None


async def _show_use(info: Info, usage: FieldUsage, reason: str | None) -> FieldUse:
    kind, _, key = usage.principal.partition(":")
    row = await info.context.load.row(models.ApiKey, UUID(key)) if kind == "api_key" else None
    return FieldUse.of(usage, row, reason, None if reason is None else read_removal(reason))


async def _show_reservation(row: models.Reservation, info: Info) -> Reservation:
    account = await info.context.load.account(row.account_id)
    assert account is not None, "it has one"
    return Reservation.of(row, info.context.now_for(account))


FINDERS: dict[str, Find] = {
    "BillingAccount": _find_account,
    "ApiKey": _find_key,
    "MetricUsage": _find_usage,
    "Metric": _find_metric,
    "Plan": _find_plan,
    "AddOn": _find_add_on,
    "PlanSubscription": _owned(models.Subscription, Right.READ_BILLING, lambda row, _: PlanSubscription.of(row)),
    "PaymentMethod": _owned(models.PaymentMethod, Right.READ_BILLING, lambda row, _: PaymentMethod.of(row)),
    "Invoice": _owned(models.Invoice, Right.READ_BILLING, lambda row, _: Invoice.of(row)),
    "InvoiceLine": _owned(models.InvoiceLine, Right.READ_BILLING, _show_line),
    "CreditNote": _owned(models.CreditNote, Right.READ_BILLING, lambda row, _: CreditNote.of(row)),
    "Quote": _owned(models.Quote, Right.READ_BILLING, _show_quote),
    "LedgerEntry": _owned(models.LedgerEntry, Right.READ_BILLING, lambda row, _: LedgerEntry.of(row)),
    "TestClock": _find_test_clock,
    "Transaction": _owned(models.Transaction, Right.READ_BILLING, lambda row, _: Transaction.of(row)),
    "RefundRequest": _owned(models.RefundRequest, Right.READ_BILLING, lambda row, _: RefundRequest.of(row)),
    "Reservation": _owned(models.Reservation, Right.READ_USAGE, _show_reservation),
    "Export": _find_export,
    "AuditEntry": _find_audit_entry,
    "Budget": _owned(models.Budget, Right.READ_BILLING, lambda row, info: show_budget(info.context, row)),
    "Recommendation": _find_recommendation,
    "Alert": _owned(models.Alert, Right.READ_USAGE, _show_alert),
    "Member": _owned(models.Member, Right.READ_BILLING, lambda row, _: Member.of(row)),
    "Invite": _owned(models.Invite, Right.READ_BILLING, lambda row, _: Invite.of(row)),
    "Contact": _owned(models.Contact, Right.READ_BILLING, lambda row, _: Contact.of(row)),
    "BillingEvent": _owned(models.OutboxEvent, Right.READ_BILLING, _show_event),
    "WebhookEndpoint": _find_endpoint,
    "WebhookDelivery": _find_delivery,
    "Notice": _owned(models.Notice, Right.READ_BILLING, _show_notice),
}


async def find_node(info: Info, id_: str) -> Node | None:
    """The object with an id, for those who may see it; unknown, broken and foreign ids all give none."""
    found = decode_id(id_)
    find = FINDERS.get(found.type_name) if found else None
    return None if found is None or find is None else await find(info, found)


@strawberry.input(description="Which accounts. What is left out does not filter.")
class BillingAccountFilter:
    """A filter of accounts."""

    search: str | None = said("With this text in the name or external id.")
    status: list[SubscriptionStatus] | None = said("With a subscription in one of these states.")
    plan_key: str | None = said("On this plan.")
    external_ids: list[str] | None = said("With one of these external ids, at most 100.")
    updated_since: datetime | None = said("Changed at or after.")

    def to_filter(self) -> accounts.AccountFilter:
        """As the services know it."""
        if len(self.external_ids or ()) > accounts.MAX_EXTERNAL_IDS:
            raise RequestRefused(ErrorCode.BAD_USER_INPUT, f"`externalIds` has at most {accounts.MAX_EXTERNAL_IDS}.")
        if any(
            "\x00" in text or len(text) > 255
            for text in (self.search or "", self.plan_key or "", *(self.external_ids or ()))
        ):
            raise RequestRefused(
                ErrorCode.BAD_USER_INPUT, "A text of the filter is longer than 255 characters, or holds NUL."
            )
        return accounts.AccountFilter(
            search=self.search,
            status=tuple(self.status or ()),
            plan_key=self.plan_key,
            external_ids=None if self.external_ids is None else tuple(self.external_ids),
            updated_since=self.updated_since,
        )


def _rights(principal: Principal, account_id: Any) -> list[Right]:
    return [right for right in Right if principal.may(right, account_id)]


@cache
def _deprecations(schema: BaseSchema) -> dict[str, str]:
    return dict(list_deprecations(cast("Schema", schema)._schema))


@cache
def _schema_version(schema: BaseSchema) -> str:
    # As `plafond schema` prints it, the last newline included: `sha256sum schema.graphql` begins with it.
    return hashlib.sha256(f"{schema.as_str()}\n".encode()).hexdigest()[:12]


@strawberry.type
class Query:
    """What of Query is for everybody."""

    @query(Right.SIGNED_IN)
    async def viewer(self, info: Info) -> Viewer:
        """Who is asking."""
        principal = info.context.principal
        mine = [
            (account_id, role)
            for account_id, role in list(principal.roles.items())[:MAX_VIEWER_ACCOUNTS]
            if _may(info, Right.READ_USAGE, account_id)
        ]
        rows = await asyncio.gather(*(info.context.load.account(account_id) for account_id, _ in mine))
        shown = [
            ViewerAccount(account=BillingAccount.of(row), role=role, rights=_rights(principal, row.id))
            for row, (_, role) in zip(rows, mine, strict=True)
            if row is not None
        ]
        roles = {Role.OPERATOR} if principal.is_operator else set(principal.roles.values())
        return Viewer(
            kind=principal.kind,
            display_name=principal.display_name,
            roles=sorted(roles),
            scopes=sorted(principal.scopes or ()),
            rights=_rights(principal, None),
            accounts=shown,
        )

    @query(Right.SIGNED_IN)
    async def node(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="The object's id.")],
    ) -> Node | None:
        """The object with an id; null for what is not there, or not the caller's to see."""
        return await find_node(info, id)

    @query(Right.SIGNED_IN)
    async def nodes(
        self,
        info: Info,
        ids: Annotated[list[strawberry.ID], strawberry.argument(description="The objects' ids, at most 100.")],
    ) -> list[Node | None]:
        """The objects with these ids, in their order, null where there is none."""
        if len(ids) > MAX_NODES:
            raise RequestRefused(ErrorCode.BAD_USER_INPUT, f"`ids` has at most {MAX_NODES}, not {len(ids)}.")
        return await asyncio.gather(*(find_node(info, id_) for id_ in ids))

    @query(Right.READ_USAGE)
    async def billing_account(
        self,
        info: Info,
        id: Annotated[strawberry.ID | None, strawberry.argument(description="By its id.")] = None,
        external_id: Annotated[str | None, strawberry.argument(description="By the partner's own id.")] = None,
    ) -> BillingAccount | None:
        """An account; with neither argument the caller's only one. Null for what is not there or not the caller's."""
        if id is not None and external_id is not None:
            raise RequestRefused(ErrorCode.BAD_USER_INPUT, "Give `id` or `externalId`, not both.")
        if external_id is not None:
            if len(external_id) > 255 or "\x00" in external_id:
                return None
            async with info.context.read() as session:
                row = await accounts.find_by_external_id(session, info.context.principal, external_id)
            if row is None:
                return None
            info.context.load.know(row)
            return BillingAccount.of(row)
        if id is not None:
            found = decode_id(id)
            return await _find_account(info, found) if found and found.type_name == "BillingAccount" else None
        only = accounts.only_account_id(info.context.principal)
        row = None if only is None else await info.context.load.account(only)
        return None if row is None else BillingAccount.of(row)

    @query(Right.READ_BILLING)
    async def billing_accounts(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        filter: Annotated[BillingAccountFilter | None, strawberry.argument(description="Which accounts.")] = None,
    ) -> Connection[BillingAccount]:
        """The accounts that the caller may see, newest first."""
        window = check_window(first, last, after, before)
        chosen = filter.to_filter() if filter else accounts.AccountFilter()
        statement = accounts.list_accounts(info.context.principal, chosen)
        async with info.context.read() as session:
            part = await read_slice(session, accounts.ORDER, statement, accounts.ORDER_KINDS, window)
        for _, row in part.rows:
            info.context.load.know(row)
        return Connection[BillingAccount].of(part, BillingAccount.of)

    @query(Right.SIGNED_IN)
    async def plans(self, info: Info, currency: CurrencyArgument = None) -> list[Plan]:
        """The plans on offer, lowest tier first; with a currency those that have a price in it."""
        async with info.context.read() as session:
            offers = await catalogue.list_offers(session, info.context.principal)
        plans = [Plan.of(offer) for offer in offers]
        if currency is None:
            return plans
        load = info.context.load
        prices = await asyncio.gather(*(load.prices(models.PriceKind.PLAN, str(plan.version_id)) for plan in plans))
        return [
            plan
            for plan, offered in zip(plans, prices, strict=True)
            if any(price.currency == currency for price in offered)
        ]

    @query(Right.SIGNED_IN)
    async def plan(
        self, info: Info, key: Annotated[str, strawberry.argument(description="The plan's key, such as professional.")]
    ) -> Plan | None:
        """A plan on offer; null where there is none with that key."""
        return await _find_plan(info, GlobalId("Plan", key)) if "\x00" not in key else None

    @query(Right.SIGNED_IN)
    async def add_ons(self, info: Info) -> list[AddOn]:
        """What can be bought beside a plan."""
        async with info.context.read() as session:
            return [AddOn.of(row) for row in await catalogue.list_add_ons(session)]

    @query(Right.SIGNED_IN)
    async def metrics(self, info: Info) -> list[Metric]:
        """What is counted or measured."""
        async with info.context.read() as session:
            return [Metric.of(row) for row in await catalogue.list_metrics(session)]

    @query(Right.READ_BILLING)
    async def events(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        types: Annotated[
            list[str] | None, strawberry.argument(description="Of these types, such as invoice.paid; all if left out.")
        ] = None,
        account_ids: Annotated[
            list[strawberry.ID] | None,
            strawberry.argument(description="Of these accounts, at most 100; all that the caller reads if left out."),
        ] = None,
    ) -> Connection[BillingEvent]:
        """What happened in the accounts that the caller reads, the oldest first: the events that webhooks send.

        Whoever reads on from the last cursor misses nothing: an event gets its place when it is committed, and none
        comes before it later. An older cursor than what is kept is refused with CURSOR_EXPIRED.
        """
        window = check_window(first, last, after, before)
        refusal = events.check_types(types)
        if refusal is not None:
            raise RequestRefused(ErrorCode.BAD_USER_INPUT, refusal)
        if len(account_ids or ()) > events.MAX_FILTERED:
            raise RequestRefused(ErrorCode.BAD_USER_INPUT, f"`accountIds` has at most {events.MAX_FILTERED}.")
        keys = None if account_ids is None else [key_of(id_, "BillingAccount") for id_ in account_ids]
        chosen = None if keys is None else [key for key in keys if key is not None]
        statement = events.select_events(info.context.principal, chosen, types)
        async with info.context.read() as session:
            part = await events.read_events(session, statement, window)
        return Connection[BillingEvent].of(part, BillingEvent.of)

    @query(Right.OPERATE)
    async def webhook_endpoints(self, info: Info) -> list[WebhookEndpoint]:
        """The operators' own endpoints, which hear of all accounts, oldest first; at most ten."""
        require_operator(info)
        async with info.context.read() as session:
            return [WebhookEndpoint.of(row) for row in await endpoints.list_operators_endpoints(session)]

    @query(Right.OPERATE)
    async def tax_table(self, info: Info) -> list[TaxTableRow]:
        """Who levies what, by country and region, the oldest first."""
        require_operator(info)
        async with info.context.read() as session:
            return [TaxTableRow.of(row) for row in await tax_tables.list_tax_table(session)]

    @query(Right.OPERATE)
    async def api_keys(self, info: Info) -> list[ApiKey]:
        """The operators' API keys that open all accounts, at most 100: the living ones, then the latest that ended."""
        require_operator(info)
        async with info.context.read() as session:
            return [ApiKey.of(row) for row in await list_operators_keys(session, info.context.now())]

    @query(Right.OPERATE)
    async def field_usage(
        self,
        info: Info,
        deprecated_only: Annotated[bool, strawberry.argument(description="Only what is deprecated.")] = True,
        prefix: Annotated[
            str | None,
            strawberry.argument(
                description="Only fields that begin with it, such as `Invoice.` or a whole `Type.field`."
            ),
        ] = None,
        since: Annotated[
            date | None, strawberry.argument(description="From this day on, in UTC; the last 30 days when left out.")
        ] = None,
        first: Annotated[int, strawberry.argument(description="How many, 1 to 500.")] = 100,
    ) -> list[FieldUse]:
        """Who still asks for which fields, most often first: so a deprecated one goes when nobody needs it any more."""
        require_operator(info)
        if not 1 <= first <= MAX_SHOWN:
            raise RequestRefused(ErrorCode.BAD_USER_INPUT, f"`first` is a whole number from 1 to {MAX_SHOWN}.")
        if prefix is not None and (len(prefix) > MAX_PREFIX or not prefix.isprintable()):
            raise RequestRefused(ErrorCode.BAD_USER_INPUT, f"`prefix` has at most {MAX_PREFIX} printable characters.")
        reasons = _deprecations(info.schema)
        async with info.context.read() as session:
            found = await list_field_usage(
                session,
                coordinates=list(reasons) if deprecated_only else None,
                prefix=prefix or "",
                since=since or (info.context.now() - USAGE_DAYS).date(),
                limit=first,
            )
        return list(await asyncio.gather(*(_show_use(info, usage, reasons.get(usage.coordinate)) for usage in found)))

    @query(Right.OPERATE)
    async def parked_accounts(
        self,
        info: Info,
        first: Annotated[int, strawberry.argument(description="How many, 1 to 100.")] = 20,
    ) -> list[ParkedAccount]:
        """Accounts whose due work failed again and again: they wait for an operator, and the rest go on."""
        require_operator(info)
        if not 1 <= first <= MAX_NODES:
            raise RequestRefused(ErrorCode.BAD_USER_INPUT, f"`first` is a whole number from 1 to {MAX_NODES}.")
        async with info.context.read() as session:
            rows = await list_parked(session, first)
        return [ParkedAccount.of(row) for row in rows]

    @query(Right.OPERATE)
    async def refund_requests(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        status: Annotated[
            list[RefundStatus] | None, strawberry.argument(description="In one of these states; all if left out.")
        ] = None,
    ) -> Connection[RefundRequest]:
        """What customers asked for to go back, newest first, over all accounts."""
        require_operator(info)
        window = check_window(first, last, after, before)
        statement = list_requests(tuple(status or ()))
        async with info.context.read() as session:
            part = await read_slice(session, REQUESTS_ORDER, statement, accounts.ORDER_KINDS, window)
        return Connection[RefundRequest].of(part, RefundRequest.of)

    @query(Right.SIGNED_IN)
    async def server_info(self, info: Info) -> ServerInfo:
        """The server that answers."""
        return ServerInfo(
            version=VERSION,
            schema_version=_schema_version(info.schema),
            environment=info.context.settings.environment,
            time=info.context.database.clock.now(),
        )
