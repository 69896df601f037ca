"""The queries of a month's close, of the deployment's own log, and of exports over all accounts: for operators."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated

import strawberry

from ..database import ReadSession, take_snapshot
from ..schema.audit import AuditEntry, AuditFilterArgument
from ..schema.close import DeferredRevenue, ReceivablesAging, TaxReport
from ..schema.exports import Export
from ..schema.node import NOBODY, key_of
from ..schema.paging import After, Before, Connection, First, Last
from ..services import exports, logs
from ..services.access import Right
from ..services.closes import Scope, check_instant, check_span, find_now
from ..services.deferred_revenue import sum_deferred
from ..services.paging import check_window, read_slice
from ..services.receivables import sum_aging
from ..services.relations import AuditFilter
from ..services.tax_reports import sum_taxes
from .access import query, require_operator
from .context import Info

AsOf = Annotated[datetime | None, strawberry.argument(description="The instant; now if left out.")]
TestClockId = Annotated[
    strawberry.ID | None,
    strawberry.argument(
        description="In the sandbox: of the accounts on this test clock, by its time. Left out, of those on the wall "
        "clock only: what happens on test clocks is not real."
    ),
]


def _scope(test_clock_id: str | None) -> Scope:
    return Scope(None if test_clock_id is None else key_of(test_clock_id, "TestClock") or NOBODY)


@asynccontextmanager
async def _reading(info: Info) -> AsyncGenerator[ReadSession]:
    """One state for all that a report is made of."""
    async with info.context.read() as session:
        await take_snapshot(session)
        yield session


@strawberry.type
class CloseQuery:
    """What of Query is for whoever closes the books."""

    @query(Right.OPERATE)
    async def receivables_aging(
        self, info: Info, as_of: AsOf = None, test_clock_id: TestClockId = None
    ) -> ReceivablesAging:
        """Who owed how much for how long, at an instant, as it stood then."""
        require_operator(info)
        scope = _scope(test_clock_id)
        async with _reading(info) as session:
            now = await find_now(session, scope, info.context.database.clock.now())
            at = as_of or now
            check_instant(at, now)
            return ReceivablesAging.of(at, await sum_aging(session, scope, at))

    @query(Right.OPERATE)
    async def deferred_revenue(
        self, info: Info, as_of: AsOf = None, test_clock_id: TestClockId = None
    ) -> DeferredRevenue:
        """What was invoiced and not earned yet, at an instant, as it stood then, and when time will earn it."""
        require_operator(info)
        scope = _scope(test_clock_id)
        async with _reading(info) as session:
            now = await find_now(session, scope, info.context.database.clock.now())
            at = as_of or now
            check_instant(at, now)
            return DeferredRevenue.of(at, await sum_deferred(session, scope, at))

    @query(Right.OPERATE)
    async def tax_report(
        self,
        info: Info,
        from_: Annotated[datetime, strawberry.argument(name="from", description="Of what was booked at or after …")],
        to: Annotated[datetime, strawberry.argument(description="… and before; at most 11 years later.")],
        test_clock_id: TestClockId = None,
    ) -> TaxReport:
        """The tax of invoices less credit notes, by seller, jurisdiction, category and rate."""
        require_operator(info)
        check_span(from_, to)
        scope = _scope(test_clock_id)
        async with _reading(info) as session:
            await find_now(session, scope, info.context.database.clock.now())
            return TaxReport.of(from_, to, await sum_taxes(session, scope, from_, to))

    @query(Right.OPERATE)
    async def audit_log(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        filter: AuditFilterArgument = None,
    ) -> Connection[AuditEntry]:
        """What changed of no account, newest first: the catalogue, taxes, test clocks, operators' keys and exports."""
        require_operator(info)
        window = check_window(first, last, after, before)
        statement = logs.list_entries(AuditFilter() if filter is None else filter.to_filter())
        async with info.context.read() as session:
            part = await read_slice(session, logs.ORDER, statement, logs.ORDER_KINDS, window)
        return Connection[AuditEntry].of(part, AuditEntry.of)

    @query(Right.OPERATE)
    async def exports(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[Export]:
        """The exports over all accounts, newest first. Ask again, or `node`, for how far one is."""
        require_operator(info)
        window = check_window(first, last, after, before)
        async with info.context.read() as session:
            part = await read_slice(session, exports.ORDER, exports.list_of_all(), exports.ORDER_KINDS, window)
        return Connection[Export].of(part, Export.of)
