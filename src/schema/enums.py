"""The enums, with words for each value."""

from .. import models
from ..services import access, alerts, changes, charges, errors, usage
from ..services.rules import overage
from ..settings import Environment
from .fields import said_enum

MetricKind = said_enum(
    models.MetricKind,
    {
        "COUNTER": "Adds up, and starts at 0 with each usage period.",
        "GAUGE": "A level that carries over, such as seats.",
    },
)
Interval = said_enum(
    models.Interval, {"MONTH": "Paid every month.", "YEAR": "Paid every year; usage still resets monthly."}
)
SubscriptionStatus = said_enum(
    models.SubscriptionStatus,
    {
        "TRIALING": "On trial: the plan's limits, nothing charged, no overage.",
        "ACTIVE": "In good standing.",
        "PAST_DUE": "A payment failed; everything still works.",
        "SUSPENDED": "Unpaid for too long: only reading, paying and cancelling.",
        "CANCELED": "Over; data is kept for 90 days and it can be reactivated.",
        "EXPIRED": "Over, and the data deleted; invoices stay.",
    },
)
AccountStatus = said_enum(
    models.AccountStatus,
    {
        "ACTIVE": "Fully usable.",
        "READ_ONLY": "Suspended or cancelled: reading and paying only.",
        "EXPIRED": "Its data was deleted; invoices stay.",
        "CLOSED": "Closed for good.",
    },
)
Role = said_enum(
    models.Role,
    {
        "OPERATOR": "Of the vendor: all accounts.",
        "TENANT_OWNER": "Everything of the account, people included.",
        "BILLING_ADMIN": "All billing of the account.",
        "MEMBER": "Usage and usage alerts, without money.",
    },
)
AlertKind = said_enum(
    models.AlertKind, {"USAGE": "Usage reached a share of its limit.", "BUDGET": "Spend reached a share of its budget."}
)
AlertLevel = said_enum(
    models.AlertLevel,
    {
        "OK": "No threshold is reached.",
        "NOTICE": "A threshold of the account's own, below 80 %, is reached.",
        "WARNING": "80 % is reached.",
        "UPGRADE_SUGGESTION": "90 % is reached: a larger plan would fit.",
        "URGENT": "95 % is reached: act now.",
        "LIMIT_REACHED": "100 % is reached.",
    },
)
NoticeSeverity = said_enum(
    models.NoticeSeverity,
    {
        "BLOCKING": "Something does not work until it is acted on.",
        "CRITICAL": "Something will stop working soon.",
        "WARNING": "Something needs attention.",
        "INFO": "Good to know.",
    },
)
InvoiceStatus = said_enum(
    models.InvoiceStatus,
    {
        "DRAFT": "Still waiting for late usage; has no number.",
        "OPEN": "Finalised and to be paid.",
        "PAID": "Paid in full.",
        "VOID": "Withdrawn by a credit note.",
        "UNCOLLECTIBLE": "Given up, but still payable.",
    },
)
LineKind = said_enum(
    models.LineKind,
    {
        "SUBSCRIPTION": "The plan, for its period.",
        "ADD_ON": "Units of an add-on, for a usage period.",
        "OVERAGE": "Usage above the limit, in started blocks.",
        "PRORATION": "The rest of a period at another price.",
        "CORRECTION": "Late or corrected usage of an earlier period.",
        "CREDIT": "Given back from an earlier line.",
    },
)
TransactionKind = said_enum(
    models.TransactionKind,
    {
        "CHARGE": "Money taken from a payment method.",
        "REFUND": "Money given back of a charge.",
        "CREDIT": "Put on the account's credit balance.",
        "CARRIED_FORWARD": "Too small to charge: due with the next invoice.",
        "MANUAL": "A payment booked by an operator, such as a transfer.",
        "DISPUTE": "Money held back by a cardholder's dispute.",
        "WRITE_OFF": "Given up.",
    },
)
TransactionStatus = said_enum(
    models.TransactionStatus,
    {
        "PENDING": "Not yet sent to the processor.",
        "REQUIRES_ACTION": "The cardholder has to authenticate.",
        "UNKNOWN": "The processor did not answer: it is being looked up.",
        "SUCCEEDED": "The money moved.",
        "FAILED": "The money did not move.",
        "CANCELED": "Stopped before the money moved.",
    },
)
RefundState = said_enum(
    models.RefundState,
    {"NONE": "Nothing was refunded.", "PARTIAL": "A part was refunded.", "FULL": "All of it was refunded."},
)
FailureCode = said_enum(
    models.FailureCode,
    {
        "CARD_DECLINED": "The bank declined without saying why.",
        "INSUFFICIENT_FUNDS": "There is not enough money on the account.",
        "EXPIRED_CARD": "The card has expired.",
        "AUTHENTICATION_REQUIRED": "The cardholder has to authenticate.",
        "INCORRECT_DETAILS": "A detail of the card is wrong.",
        "STOLEN_OR_CLOSED": "The card cannot be used any more.",
        "PROCESSOR_ERROR": "The processor had a fault.",
    },
)
PaymentMethodKind = said_enum(models.PaymentMethodKind, {"CARD": "A credit or debit card."})
BudgetScope = said_enum(
    models.BudgetScope,
    {
        "ACCOUNT": "All spend of the account.",
        "METRIC": "Overage and add-ons of one metric.",
        "WORKSPACE": "What the events of one workspace cost.",
    },
)
BudgetAction = said_enum(
    models.BudgetAction,
    {
        "ALERT_ONLY": "Tell, and let usage go on.",
        "BLOCK_OVERAGE": "Refuse usage that would cost more.",
        "UPGRADE": "Change to the next plan, once per period.",
    },
)
Granularity = said_enum(
    models.Granularity,
    {
        "HOUR": "Hours of the account's zone.",
        "DAY": "Days of the account's zone.",
        "MONTH": "Calendar months of the account's zone.",
    },
)
OveragePolicy = said_enum(
    overage.OveragePolicy,
    {"BLOCK": "Usage above the limit is refused.", "CHARGE": "Usage above the limit is charged by started blocks."},
)
NextBillingKind = said_enum(
    charges.NextBillingKind,
    {
        "RENEWAL": "The plan's next period, with what else is due then.",
        "ADD_ONS": "Add-ons of the next usage period, under an annual plan.",
        "OVERAGE": "Overage alone, under an annual plan.",
        "TRIAL_END": "The first period after the trial.",
        "FINAL": "The last charge of a cancelled subscription.",
    },
)
EventStatus = said_enum(
    usage.EventStatus,
    {
        "ACCEPTED": "Counted, now and for good.",
        "DUPLICATE": "The same event was accepted before: nothing was counted twice.",
        "REJECTED": "Not counted: see `code` and `message`.",
    },
    name="UsageEventStatus",
)
RejectionCode = said_enum(
    usage.RejectionCode,
    {
        "CONFLICT": "The event id was used with other content: send a new event with a new id.",
        "UNKNOWN_ACCOUNT": "No such account for this caller: check `accountId` or `externalId`.",
        "UNKNOWN_METRIC": "No such metric: `metrics` lists them.",
        "LIMIT_EXCEEDED": "The limit would be passed, and the metric has no overage: raise the limit first.",
        "ACCOUNT_SUSPENDED": "The account is suspended: retry once its invoices are paid.",
        "ACCOUNT_CANCELED": "The account takes no more usage.",
        "IN_FUTURE": "More than five minutes ahead: check the sender's clock, then send again.",
        "TOO_OLD": "Its usage period ended more than 35 days ago, or lies before the first.",
        "INVALID_QUANTITY": "Quantity or level is missing, out of range, or not this caller's to send.",
        "NEGATIVE_USAGE": "The figure would fall below 0.",
        "INVALID_EVENT": "The event id or a property is malformed.",
    },
    name="UsageRejectionCode",
)
ChangeKind = said_enum(
    changes.ChangeKind,
    {
        "ALERT": "An alert was raised or resolved: `node` is the alert as it is now.",
        "USAGE": "A metric's figure moved: `node` is the figure as it is now.",
        "SNAPSHOT": "The stream starts here: read the page again, then apply what follows.",
        "GAP": "The cursor is older than what is kept: a SNAPSHOT follows.",
    },
)
PrincipalKind = said_enum(
    access.PrincipalKind,
    {
        "API_KEY": "A program with an API key.",
        "MEMBER": "A person of one or more accounts.",
        "OPERATOR": "A person of the vendor.",
    },
    name="ViewerKind",
)
Action = said_enum(access.Action, {"RECORD_USAGE": "Send usage events: `recordUsage`."})
RecommendedActionKind = said_enum(
    alerts.RecommendedActionKind,
    {"UPGRADE_PLAN": "Change to a plan with a higher limit.", "REDUCE_USAGE": "Use less until the period ends."},
)
ServerEnvironment = said_enum(
    Environment,
    {"SANDBOX": "For trying out: no money moves.", "PRODUCTION": "Money is real."},
    name="Environment",
)
UserErrorCode = said_enum(
    errors.UserErrorCode,
    {
        "INVALID": "The input does not fit: `message` says how to mend it.",
        "NOT_FOUND": "Nothing with that id that you may see.",
        "FORBIDDEN": "Your role or scopes do not allow it.",
        "IDEMPOTENCY_MISMATCH": "The idempotency key was used with another input: take a new key.",
        "IDEMPOTENCY_IN_FLIGHT": "The first request with this key is still under way: ask again in a moment.",
    },
)
