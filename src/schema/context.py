"""What a field can ask for while it is answered."""

from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import Protocol, TypeAlias, TypeVar
from uuid import UUID

import strawberry

from ..models import (
    AddOn,
    Alert,
    ApiKey,
    Base,
    BillingAccount,
    Budget,
    Document,
    Export,
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
from ..services.access import Principal
from ..services.advice import Fit
from ..services.budget_states import BudgetState
from ..services.budgets import BudgetInput
from ..services.coverage import Coverage
from ..services.dunning import DunningState
from ..services.explorer import SpendQuestion
from ..services.history import History, HistoryKey
from ..services.links import Link, LinkForm
from ..services.paging import Slice, Window
from ..services.quotes import QuoteView
from ..services.recommendations import Recommendation
from ..services.refundables import Refundable
from ..services.relations import Agreement, Filter, HeldAddOn, PagedRelation, PlanOffer, Relation
from ..services.rules.backtest import Outcome
from ..services.rules.explorer import SpendEntry
from ..services.spends import Shares
from ..services.standing import Scheduling, Standing
from ..services.usage import UsageFigure
from ..services.watches import Watches

RowT = TypeVar("RowT", bound=Base)


class Loads(Protocol):
    """Batched reads: what sibling fields ask for in one moment is one statement."""

    def row(self, target: type[RowT], id_: UUID) -> Awaitable[RowT | None]:
        """A row by id."""
        ...

    def account(self, id_: UUID) -> Awaitable[BillingAccount | None]:
        """An account by id."""
        ...

    def related(self, relation: Relation[RowT], parent: object) -> Awaitable[Sequence[RowT]]:
        """All rows of a parent."""
        ...

    def page(
        self, relation: PagedRelation[RowT], parent: UUID, chosen: Filter, window: Window
    ) -> Awaitable[Slice[RowT]]:
        """A page of a parent's list."""
        ...

    def agreement(self, account_id: UUID) -> Awaitable[Agreement | None]:
        """An account's subscription with its plan."""
        ...

    def standing(self, account_id: UUID) -> Awaitable[Standing | None]:
        """How an account stands."""
        ...

    def changed_standing(
        self, standing: Standing, plan_key: str, interval: Interval, now: datetime
    ) -> Awaitable[Standing]:
        """How an account would stand after a change of plan that is not made yet."""
        ...

    def quote_view(self, standing: Standing, quote: Quote) -> Awaitable[QuoteView]:
        """What a quote comes to."""
        ...

    def offers_for(self, account: BillingAccount) -> Awaitable[Sequence[PlanOffer]]:
        """The plans that an account can buy."""
        ...

    def invoice_by_number(self, account_id: UUID, number: str) -> Awaitable[Invoice | None]:
        """An account's invoice by its number."""
        ...

    def scheduled(self, account_id: UUID) -> Awaitable[Scheduling | None]:
        """The change that waits for an account's period to end."""
        ...

    def held_add_ons(self, account_id: UUID) -> Awaitable[Sequence[HeldAddOn]]:
        """An account's add-ons."""
        ...

    def dunning(self, account_id: UUID) -> Awaitable[DunningState | None]:
        """How an account's dunning stands."""
        ...

    def conduct(self, customer: str) -> Awaitable[SandboxConduct | None]:
        """How the sandbox's processor was told to behave towards a customer."""
        ...

    def refundable(self, charge: Transaction) -> Awaitable[Refundable]:
        """What tells what may go back of a payment."""
        ...

    def figures(self, account_id: UUID) -> Awaitable[Sequence[UsageFigure]]:
        """An account's usage figures."""
        ...

    def certain_spend(self, account_id: UUID) -> Awaitable[int | None]:
        """What of the running usage period is spent whatever is used."""
        ...

    def shares(self, account_id: UUID) -> Awaitable[Shares]:
        """What an account's workspaces used in the running usage period."""
        ...

    async def budget_state(self, budget: Budget) -> BudgetState:
        """How a budget stands."""
        ...

    def watches(self, account_id: UUID) -> Awaitable[Watches]:
        """What watches each metric of an account."""
        ...

    async def fit(self, alert: Alert) -> Fit:
        """What would bring an alert's metric well below its limit."""
        ...

    async def recommendations(self, account_id: UUID) -> Sequence[Recommendation]:
        """What an account is advised, as it stands."""
        ...

    def spend(self, account: BillingAccount, question: SpendQuestion) -> Awaitable[Sequence[SpendEntry]]:
        """What an account spent."""
        ...

    async def backtest(self, account: BillingAccount, asked: BudgetInput, months: int) -> Sequence[Outcome]:
        """What a budget would have done in an account's last closed usage periods."""
        ...

    async def coverage(self, account: BillingAccount, now: datetime, instant: datetime | None) -> Coverage | None:
        """Whether an account's usage period was told of completely."""
        ...

    def history(self, granularity: Granularity, key: HistoryKey) -> Awaitable[History]:
        """An account's roll-ups."""
        ...

    def metric(self, key: str) -> Awaitable[Metric | None]:
        """A metric by key."""
        ...

    def offer(self, key: str) -> Awaitable[PlanOffer | None]:
        """A plan on offer by key."""
        ...

    def add_on(self, key: str) -> Awaitable[AddOn | None]:
        """An add-on by key."""
        ...

    def keys(self, account_id: UUID) -> Awaitable[Sequence[ApiKey]]:
        """The API keys that open an account."""
        ...

    def prices(self, kind: PriceKind, subject: str) -> Awaitable[Sequence[Price]]:
        """The prices of a thing."""
        ...


class Context(Protocol):
    """The caller of an operation, the time, and the reads."""

    @property
    def principal(self) -> Principal:
        """Who asks."""
        ...

    @property
    def load(self) -> Loads:
        """The reads of this operation."""
        ...

    def now(self) -> datetime:
        """The time by the wall clock."""
        ...

    def now_for(self, account: BillingAccount) -> datetime:
        """The time that holds for an account."""
        ...

    def link_to(self, document: Document | Export, form: LinkForm) -> Link:
        """A link that opens a document or export for a while."""
        ...


Info: TypeAlias = strawberry.Info[Context, None]
