"""Reserving usage, and what may pass a limit."""

from typing import Any, cast

import strawberry

from ..services.reservations import MAX_SECONDS, MIN_SECONDS, SECONDS
from .billing import BillingAccount, MetricUsage, Reservation
from .enums import OveragePolicy
from .errors import UserError
from .fields import said
from .scalars import BigInt, JsonObject


@strawberry.input(description="What somebody wants to be sure of before doing what uses it.")
class ReserveUsageInput:
    """A reservation to be made."""

    account_id: strawberry.ID | None = strawberry.field(
        default=None, description="Whose usage, by the account's id; or give `externalId`."
    )
    external_id: str | None = strawberry.field(default=None, description="Whose usage, by your own id of the account.")
    metric: str = said("The metric's key, such as email_sends.")
    quantity: BigInt = said("How much will be used, at most: what turns out to be less is committed in part.")
    seconds: int = strawberry.field(
        default=SECONDS, description=f"For how long it is held, {MIN_SECONDS} to {MAX_SECONDS}."
    )
    properties: JsonObject | None = strawberry.field(
        default=None, description="As of a usage event: up to 20 pairs; `workspace` names the workspace that uses it."
    )
    idempotency_key: str | None = strawberry.field(
        default=None, description="Under it only one reservation is made; asked again within 48 hours it comes back."
    )

    def given_properties(self) -> dict[str, Any]:
        """As the services know them."""
        return cast("dict[str, Any]", self.properties or {})


@strawberry.input(description="A reservation that becomes usage.")
class CommitReservationInput:
    """A commitment."""

    reservation_id: strawberry.ID = said("One that still holds. Committed again it stays as it is.")
    quantity: BigInt | None = strawberry.field(
        default=None, description="What was really used; all of it when left out. The rest is given back."
    )


@strawberry.input(description="A reservation that is given back.")
class ReleaseReservationInput:
    """A release."""

    reservation_id: strawberry.ID = said("One that was not committed. Released or expired before, it stays as it is.")


@strawberry.type(description="A reservation as it stands now.")
class ReservationPayload:
    """The answer to what is done to a reservation."""

    reservation: Reservation | None = strawberry.field(default=None, description="The reservation; null when refused.")
    usage: MetricUsage | None = strawberry.field(
        default=None, description="The metric's figure with what is held now; null when refused."
    )
    user_errors: list[UserError] = strawberry.field(
        default_factory=list, description="Why it was refused; empty when it was not."
    )


@strawberry.input(description="What shall happen above a metric's limit.")
class SetOveragePolicyInput:
    """A policy to be set."""

    account_id: strawberry.ID = said("Of which account.")
    metric: str = said("For which metric, by key. Tenants set it where overage is sold; operators for all.")
    policy: OveragePolicy = said("CHARGE and ASK need a price in the account's currency; ALLOW is for operators.")


@strawberry.input(description="What may pass a metric's limit in the running usage period.")
class ApproveOverageInput:
    """An approval."""

    account_id: strawberry.ID = said("Of which account.")
    metric: str = said("For which metric, by key: its policy in force is ASK.")
    blocks: BigInt | None = strawberry.field(
        default=None,
        description="How many blocks may be started in this period in all, those in use included; without it the rest "
        "of the period is approved.",
    )


@strawberry.type(description="An account after what may pass a limit was changed.")
class OveragePayload:
    """The answer to a policy or an approval."""

    account: BillingAccount | None = strawberry.field(
        default=None, description="The account: its `usage` tells the policy in force; null when refused."
    )
    user_errors: list[UserError] = strawberry.field(
        default_factory=list, description="Why it was refused; empty when it was not."
    )
