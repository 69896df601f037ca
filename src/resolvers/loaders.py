"""The loaders of one operation: made from the relations, so that siblings cost one statement. No SQL here."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from aiodataloader import DataLoader

from ..database import Database, ReadSession, take_snapshot
from ..models import (
    AddOn,
    Alert,
    ApiKey,
    Base,
    BillingAccount,
    Budget,
    BudgetScope,
    CreditNote,
    Granularity,
    Interval,
    Invoice,
    Metric,
    Price,
    PriceKind,
    Quote,
    SandboxConduct,
    Transaction,
)
from ..services import catalogue, relations
from ..services.accounts import load_accounts
from ..services.advice import Buyer, Fit, Market, find_fit, load_market
from ..services.backtests import run_backtest
from ..services.budget_states import BudgetState, Holds, load_holds, state_of
from ..services.budgets import BudgetInput
from ..services.coverage import Coverage, cover_alerts
from ..services.dunning import DunningState, load_states
from ..services.errors import ErrorCode, RequestRefused
from ..services.explorer import SpendQuestion, load_spend
from ..services.history import History, HistoryKey, load_history
from ..services.keys import load_keys
from ..services.paging import Slice, Window
from ..services.past_months import load_pasts
from ..services.quotes import QuoteView, suppose_change, view_quote
from ..services.recommendations import Grounds, Recommendation, list_recommendations
from ..services.refundables import Refundable, load_refundables
from ..services.relations import (
    METHODS_OF_ACCOUNT,
    PERIODS_OF_BUDGET,
    Agreement,
    Filter,
    HeldAddOn,
    PagedRelation,
    PlanOffer,
    Relation,
)
from ..services.rules.backtest import Outcome
from ..services.rules.explorer import SpendEntry
from ..services.spends import Shares, load_certain, load_shares
from ..services.standing import Parts, Scheduling, Standing, assemble, load_parts, load_scheduled
from ..services.usage import UsageFigure, load_figures
from ..services.watches import Watches, load_watches

RowT = TypeVar("RowT", bound=Base)
MAX_BATCH = 500
MAX_BACKTESTS = 10
"""Each reads months of an account."""


class Loaders:
    """The batching caches of one operation, made as they are asked for. Never share them between operations."""

    def __init__(self, database: Database, *, may_lag: bool) -> None:
        self._database = database
        self._may_lag = may_lag
        self._made: dict[object, DataLoader[Any, Any]] = {}
        self._backtests = 0

    def _loader(
        self, name: object, read: Callable[[ReadSession, Sequence[Any]], Awaitable[Sequence[Any]]]
    ) -> DataLoader[Any, Any]:
        if name not in self._made:

            async def load(keys: list[Any]) -> list[Any]:
                async with self._database.read(may_lag=self._may_lag) as session:
                    return list(await read(session, keys))

            self._made[name] = DataLoader(load, max_batch_size=MAX_BATCH)
        return self._made[name]

    def row(self, target: type[RowT], id_: UUID) -> Awaitable[RowT | None]:
        """A row by id."""
        return self._loader(target, lambda session, ids: relations.load_rows(session, target, ids)).load(id_)

    def account(self, id_: UUID) -> Awaitable[BillingAccount | None]:
        """An account by id."""
        return self._loader("account", load_accounts).load(id_)

    def related(self, relation: Relation[RowT], parent: object) -> Awaitable[Sequence[RowT]]:
        """All rows of a parent."""
        return self._loader(
            relation.name, lambda session, parents: relations.load_related(session, relation, parents)
        ).load(parent)

    def page(
        self, relation: PagedRelation[RowT], parent: UUID, chosen: Filter, window: Window
    ) -> Awaitable[Slice[RowT]]:
        """A page of a parent's list."""
        return self._loader(
            (relation.name, chosen, window),
            lambda session, parents: relations.load_pages(session, relation, parents, chosen, window),
        ).load(parent)

    def know(self, account: BillingAccount) -> None:
        """Take an account that was read already, so that its fields need not read it again."""
        self._loader("account", load_accounts).prime(account.id, account)

    def agreement(self, account_id: UUID) -> Awaitable[Agreement | None]:
        """An account's subscription with its plan."""
        return self._loader("agreement", relations.load_agreements).load(account_id)

    async def standing(self, account_id: UUID) -> Standing | None:
        """How an account stands."""
        parts: Parts | None = await self._loader("standing", load_parts).load(account_id)
        if parts is None:
            return None
        agreement, add_ons, figures, methods = await asyncio.gather(
            self.agreement(account_id),
            self.held_add_ons(account_id),
            self.figures(account_id),
            self.related(METHODS_OF_ACCOUNT, account_id),
        )
        return assemble(parts, agreement, add_ons, figures, methods)

    async def changed_standing(self, standing: Standing, plan_key: str, interval: Interval, now: datetime) -> Standing:
        """How an account would stand after a change of plan that is not made yet."""
        async with self._database.read(may_lag=self._may_lag) as session:
            supposed: Standing = await suppose_change(session, standing, plan_key, interval, now)
            return supposed

    async def quote_view(self, standing: Standing, quote: Quote) -> QuoteView:
        """What a quote comes to."""
        async with self._database.read(may_lag=self._may_lag) as session:
            return await view_quote(session, standing, quote)

    async def offers_for(self, account: BillingAccount) -> Sequence[PlanOffer]:
        """The plans that an account can buy."""
        async with self._database.read(may_lag=self._may_lag) as session:
            return await catalogue.list_offers_for(session, account)

    def invoice_by_number(self, account_id: UUID, number: str) -> Awaitable[Invoice | None]:
        """An account's invoice by its number."""
        return self._loader("invoice_by_number", relations.load_invoices_by_number).load((account_id, number))

    async def notes_of_cancellation(self, account_id: UUID) -> Sequence[CreditNote]:
        """The credit notes that an account's last cancellation made."""
        async with self._database.read(may_lag=self._may_lag) as session:
            return await relations.load_notes_of_cancellation(session, account_id)

    def scheduled(self, account_id: UUID) -> Awaitable[Scheduling | None]:
        """The change that waits for an account's period to end."""
        return self._loader("scheduled", load_scheduled).load(account_id)

    def held_add_ons(self, account_id: UUID) -> Awaitable[Sequence[HeldAddOn]]:
        """An account's add-ons."""
        return self._loader("held_add_ons", relations.load_held_add_ons).load(account_id)

    def dunning(self, account_id: UUID) -> Awaitable[DunningState | None]:
        """How an account's dunning stands."""
        return self._loader("dunning", load_states).load(account_id)

    def conduct(self, customer: str) -> Awaitable[SandboxConduct | None]:
        """How the sandbox's processor was told to behave towards a customer."""

        async def read(session: ReadSession, customers: Sequence[str]) -> list[SandboxConduct | None]:
            rows = await relations.load_conducts(session, customers)
            return [rows.get(name) for name in customers]

        return self._loader("conduct", read).load(customer)

    def refundable(self, charge: Transaction) -> Awaitable[Refundable]:
        """What tells what may go back of a payment."""

        async def read(session: ReadSession, charges: Sequence[Transaction]) -> list[Refundable]:
            found = await load_refundables(session, charges)
            return [found[row.id] for row in charges]

        return self._loader("refundable", read).load(charge)

    def figures(self, account_id: UUID) -> Awaitable[Sequence[UsageFigure]]:
        """An account's usage figures."""

        async def read(session: ReadSession, ids: Sequence[UUID]) -> list[list[UsageFigure]]:
            found = await load_figures(session, ids, self._database.clock.now())
            return [found[id_] for id_ in ids]

        return self._loader("figures", read).load(account_id)

    async def budget_state(self, budget: Budget) -> BudgetState:
        """How a budget stands."""
        account_id = budget.account_id
        account, periods, figures = await asyncio.gather(
            self.account(account_id), self.related(PERIODS_OF_BUDGET, budget.id), self.figures(account_id)
        )
        assert account is not None, "a foreign key guarantees the account"
        holds = await self._holds(account_id) if budget.scope is BudgetScope.WORKSPACE else None
        return state_of(account, budget, periods, figures, holds, self._database.clock.now_for(account))

    def certain_spend(self, account_id: UUID) -> Awaitable[int | None]:
        """What of the running usage period is spent whatever is used."""

        async def read(session: ReadSession, ids: Sequence[UUID]) -> list[int | None]:
            return await load_certain(session, ids, self._database.clock.now())

        return self._loader("certain", read).load(account_id)

    def shares(self, account_id: UUID) -> Awaitable[Shares]:
        """What an account's workspaces used in the running usage period."""

        async def read(session: ReadSession, ids: Sequence[UUID]) -> list[Shares]:
            return await load_shares(session, ids, self._database.clock.now())

        return self._loader("shares", read).load(account_id)

    def _holds(self, account_id: UUID) -> Awaitable[Holds]:

        async def read(session: ReadSession, ids: Sequence[UUID]) -> list[Holds]:
            return await load_holds(session, ids, self._database.clock.now())

        return self._loader("holds", read).load(account_id)

    def watches(self, account_id: UUID) -> Awaitable[Watches]:
        """What watches each metric of an account."""
        return self._loader("watches", load_watches).load(account_id)

    async def fit(self, alert: Alert) -> Fit:
        """What would bring an alert's metric well below its limit."""
        account_id = alert.account_id
        account, market, agreement, add_ons, figures = await asyncio.gather(
            self.account(account_id),
            self._market(),
            self.agreement(account_id),
            self.held_add_ons(account_id),
            self.figures(account_id),
        )
        assert account is not None, "alerts are an account's"
        return find_fit(market, Buyer(account, agreement, add_ons, figures), alert)

    def _market(self) -> Awaitable[Market]:

        async def read(session: ReadSession, keys: Sequence[str]) -> list[Market]:
            market = await load_market(session)
            return [market for _ in keys]

        return self._loader("market", read).load("all")

    async def recommendations(self, account_id: UUID) -> Sequence[Recommendation]:
        """What an account is advised, as it stands."""
        past, account, market, agreement, add_ons, figures, scheduled = await asyncio.gather(
            self._loader("past", load_pasts).load(account_id),
            self.account(account_id),
            self._market(),
            self.agreement(account_id),
            self.held_add_ons(account_id),
            self.figures(account_id),
            self.scheduled(account_id),
        )
        assert account is not None, "it was asked for on the account"
        return list_recommendations(Grounds(market, Buyer(account, agreement, add_ons, figures), scheduled, past))

    def spend(self, account: BillingAccount, question: SpendQuestion) -> Awaitable[Sequence[SpendEntry]]:
        """What an account spent."""

        async def read(session: ReadSession, accounts: Sequence[BillingAccount]) -> list[list[SpendEntry]]:
            await take_snapshot(session)
            nows = [self._database.clock.now_for(row) for row in accounts]
            return await load_spend(session, question, accounts, nows)

        return self._loader(("spend", question), read).load(account)

    async def backtest(self, account: BillingAccount, asked: BudgetInput, months: int) -> Sequence[Outcome]:
        """What a budget would have done in an account's last closed usage periods."""
        self._backtests += 1
        if self._backtests > MAX_BACKTESTS:
            told = f"At most {MAX_BACKTESTS} backtests are run at once: ask for the others in another request."
            raise RequestRefused(ErrorCode.BAD_USER_INPUT, told)
        async with self._database.read(may_lag=self._may_lag) as session:
            await take_snapshot(session)
            return await run_backtest(session, account, asked, months)

    async def coverage(self, account: BillingAccount, now: datetime, instant: datetime | None) -> Coverage | None:
        """Whether an account's usage period was told of completely."""
        async with self._database.read() as session:
            await take_snapshot(session)
            return await cover_alerts(session, account, now, instant)

    def history(self, granularity: Granularity, key: HistoryKey) -> Awaitable[History]:
        """An account's roll-ups."""
        return self._loader(
            ("history", granularity), lambda session, keys: load_history(session, keys, granularity)
        ).load(key)

    def metric(self, key: str) -> Awaitable[Metric | None]:
        """A metric by key."""
        return self._loader("metric", catalogue.load_metrics).load(key)

    def offer(self, key: str) -> Awaitable[PlanOffer | None]:
        """A plan on offer by key."""
        return self._loader("offer", catalogue.load_offers).load(key)

    def add_on(self, key: str) -> Awaitable[AddOn | None]:
        """An add-on by key."""
        return self._loader("add_on", catalogue.load_add_ons).load(key)

    def keys(self, account_id: UUID) -> Awaitable[Sequence[ApiKey]]:
        """The API keys that open an account."""

        async def read(session: ReadSession, ids: Sequence[UUID]) -> list[list[ApiKey]]:
            return await load_keys(session, ids, self._database.clock.now())

        return self._loader("keys", read).load(account_id)

    def prices(self, kind: PriceKind, subject: str) -> Awaitable[Sequence[Price]]:
        """The prices of a thing."""
        return self._loader("prices", relations.load_prices).load((kind, subject))
