"""What is watched, and what was seen: the inputs and answers."""

import strawberry

from ..services.acknowledgements import MAX_ALERTS
from ..services.alert_thresholds import MAX_OWN
from ..services.rules.thresholds import HIGHEST, LOWEST
from .billing import Alert, BillingAccount, MetricUsage
from .errors import UserError
from .fields import maybe, once_key, refusals, said


@strawberry.input(description="The account's own thresholds of one metric: these take the place of those set before.")
class SetAlertThresholdsInput:
    """Thresholds."""

    account_id: strawberry.ID = said("Whose.")
    metric: str = said("The metric's key, such as email_sends.")
    percents: list[int] = said(
        f"Shares of the limit in whole percent, {LOWEST} to {HIGHEST}, each once and in any order; at most {MAX_OWN}, "
        "the built-in ones (80, 90, 95, 100) not counted: those always hold, and naming them changes nothing. Empty "
        "takes all own ones away."
    )
    idempotency_key: str | None = once_key()


@strawberry.type(description="The metric with its thresholds, or why they were not set.")
class SetAlertThresholdsPayload:
    """The answer."""

    usage: MetricUsage | None = maybe("The metric with its thresholds and level as they are now.")
    account: BillingAccount | None = maybe("The account: alerts may have been raised or resolved at once.")
    user_errors: list[UserError] = refusals()


@strawberry.input(description="Which alerts somebody has seen.")
class AcknowledgeAlertsInput:
    """Acknowledgements."""

    account_id: strawberry.ID = said("Whose.")
    ids: list[strawberry.ID] = said(
        f"1 to {MAX_ALERTS} alerts of the account, open or resolved. One that is acknowledged stays as it is."
    )
    idempotency_key: str | None = once_key()


@strawberry.type(description="The alerts as they are now, or why none was acknowledged.")
class AcknowledgeAlertsPayload:
    """The answer."""

    alerts: list[Alert] | None = maybe("The alerts named, each with who saw it first, in the order given.")
    account: BillingAccount | None = maybe("The account as it is now.")
    user_errors: list[UserError] = refusals()
