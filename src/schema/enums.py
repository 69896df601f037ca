"""The enums, with words for each value."""

from ..models import (
    AccountStatus,
    AlertDelivery,
    AlertKind,
    AlertLevel,
    BudgetAction,
    BudgetScope,
    ChangeAct,
    CollectionMethod,
    ContactTopic,
    DisabledReason,
    EndpointStatus,
    EntryKind,
    ExportFormat,
    ExportKind,
    ExportStatus,
    FailureCode,
    Granularity,
    Interval,
    InvoiceKind,
    InvoiceStatus,
    LedgerAccount,
    LineKind,
    MetricKind,
    NoticeSeverity,
    OveragePolicy,
    PaymentMethodKind,
    RefundReason,
    RefundState,
    RefundStatus,
    ReservationStatus,
    Role,
    SandboxAnswers,
    SandboxMessages,
    SpikeCauseKind,
    SubscriptionStatus,
    TransactionKind,
    TransactionStatus,
    WorkKind,
)
from ..models import DeliveryStatus as WebhookDeliveryStatus
from ..services.access import MEANINGS, PrincipalKind, Right
from ..services.alerts import RecommendedActionKind
from ..services.changes import ChangeKind
from ..services.charges import NextBillingKind
from ..services.coverage import AlertChannel, DeliveryStatus
from ..services.errors import UserErrorCode
from ..services.keys import KeyStatus as ApiKeyStatus
from ..services.papers import PaperSize
from ..services.permissions import Action
from ..services.refunds import RefundDecision
from ..services.rules.explorer import SpendBasis, SpendGroup
from ..services.rules.refunds import RefundCode
from ..services.rules.rerating import RecommendationKind
from ..services.usage import EventStatus, RejectionCode
from ..settings import Environment
from .fields import say_enum

WebhookEndpointStatus = EndpointStatus
WebhookDisabledReason = DisabledReason

__all__ = [
    "AccountStatus",
    "Action",
    "AlertChannel",
    "AlertDelivery",
    "AlertKind",
    "AlertLevel",
    "ApiKeyStatus",
    "BudgetAction",
    "BudgetScope",
    "ChangeAct",
    "ChangeKind",
    "CollectionMethod",
    "ContactTopic",
    "DeliveryStatus",
    "EntryKind",
    "Environment",
    "EventStatus",
    "ExportFormat",
    "ExportKind",
    "ExportStatus",
    "FailureCode",
    "Granularity",
    "Interval",
    "InvoiceKind",
    "InvoiceStatus",
    "LedgerAccount",
    "LineKind",
    "MetricKind",
    "NextBillingKind",
    "NoticeSeverity",
    "OveragePolicy",
    "PaperSize",
    "PaymentMethodKind",
    "PrincipalKind",
    "RecommendationKind",
    "RecommendedActionKind",
    "RefundCode",
    "RefundDecision",
    "RefundReason",
    "RefundState",
    "RefundStatus",
    "RejectionCode",
    "ReservationStatus",
    "Right",
    "Role",
    "SandboxAnswers",
    "SandboxMessages",
    "SpendBasis",
    "SpendGroup",
    "SpikeCauseKind",
    "SubscriptionStatus",
    "TransactionKind",
    "TransactionStatus",
    "UserErrorCode",
    "WebhookDeliveryStatus",
    "WebhookDisabledReason",
    "WebhookEndpointStatus",
    "WorkKind",
]

say_enum(
    MetricKind,
    {
        "COUNTER": "Adds up, and starts at 0 with each usage period.",
        "GAUGE": "A level that carries over, such as seats.",
    },
)
say_enum(Interval, {"MONTH": "Paid every month.", "YEAR": "Paid every year; usage still resets monthly."})
say_enum(
    SubscriptionStatus,
    {
        "TRIALING": "On trial: the plan's limits, nothing charged, no overage.",
        "ACTIVE": "In good standing.",
        "PAST_DUE": "A payment failed; everything still works.",
        "SUSPENDED": "Unpaid for too long: only reading, paying and cancelling.",
        "CANCELED": "Over; data is kept for 90 days and it can be reactivated.",
        "EXPIRED": "Over, and the data deleted; invoices stay.",
    },
)
say_enum(
    AccountStatus,
    {
        "ACTIVE": "Fully usable.",
        "READ_ONLY": "Suspended or cancelled: reading and paying only.",
        "EXPIRED": "Its data was deleted; invoices stay.",
        "CLOSED": "Closed for good.",
    },
)
say_enum(
    Role,
    {
        "OPERATOR": "Of the vendor: all accounts.",
        "TENANT_OWNER": "Everything of the account, people included.",
        "BILLING_ADMIN": "All billing of the account.",
        "MEMBER": "Usage and usage alerts, without money.",
    },
)
say_enum(
    AlertKind,
    {
        "USAGE": "Usage reached a share of its limit.",
        "BUDGET": "Spend reached a share of its budget.",
        "SPIKE": "A day's usage lies far above what its weekday usually has.",
    },
)
say_enum(
    SpikeCauseKind,
    {
        "WORKSPACE": "Usage that names a workspace.",
        "API_KEY": "Usage that a key sent, or an operator.",
        "PROPERTY": "Usage whose events have a property with a value. The workspace is told apart.",
    },
)
say_enum(
    AlertLevel,
    {
        "OK": "No threshold is reached.",
        "NOTICE": "A threshold of the account's own, below 80 %, is reached.",
        "WARNING": "80 % is reached, or a day is unusual.",
        "UPGRADE_SUGGESTION": "90 % is reached: a larger plan would fit.",
        "URGENT": "95 % is reached: act now.",
        "LIMIT_REACHED": "100 % is reached.",
    },
)
say_enum(
    NoticeSeverity,
    {
        "BLOCKING": "Something does not work until it is acted on.",
        "CRITICAL": "Something will stop working soon.",
        "WARNING": "Something needs attention.",
        "INFO": "Good to know.",
    },
)
say_enum(
    InvoiceStatus,
    {
        "DRAFT": "Still waiting for late usage; has no number.",
        "OPEN": "Finalised and to be paid.",
        "PAID": "Paid in full.",
        "VOID": "Withdrawn by a credit note.",
        "UNCOLLECTIBLE": "Given up, but still payable.",
    },
)
say_enum(
    LineKind,
    {
        "SUBSCRIPTION": "The plan, for its period.",
        "ADD_ON": "Units of an add-on, for a usage period.",
        "OVERAGE": "Usage above the limit, in started blocks.",
        "PRORATION": "The rest of a period at another price.",
        "CORRECTION": "Late or corrected usage of an earlier period.",
        "CREDIT": "Given back from an earlier line.",
    },
)
say_enum(
    TransactionKind,
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
say_enum(
    TransactionStatus,
    {
        "PENDING": "Not yet sent to the processor.",
        "REQUIRES_ACTION": "The cardholder has to authenticate.",
        "UNKNOWN": "The processor did not answer: it is being looked up.",
        "SUCCEEDED": "The money moved.",
        "FAILED": "The money did not move.",
        "CANCELED": "Stopped before the money moved.",
    },
)
say_enum(
    RefundState,
    {"NONE": "Nothing was refunded.", "PARTIAL": "A part was refunded.", "FULL": "All of it was refunded."},
)
say_enum(
    FailureCode,
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
say_enum(
    RefundReason,
    {
        "DUPLICATE": "It was paid twice, or too much was paid: the excess goes back whole, without a credit note.",
        "BILLING_ERROR": "Lines of the invoice are wrong.",
        "SERVICE_ISSUE": "The service did not work for a time: the share of that time.",
        "GOODWILL": "Without another reason, for a charge of the last seven days; not for annual plans.",
    },
)
say_enum(
    RefundStatus,
    {
        "REQUESTED": "Allowed by the rules; waits for an operator.",
        "NOT_ALLOWED": "Not allowed by the rules; an operator may override them.",
        "DENIED": "Denied by an operator, with a reason.",
        "APPROVED": "Approved; the money is on its way.",
        "SUCCEEDED": "The money went back, or was given as credit.",
        "FAILED": "Approved, but the processor could not pay it back: it is owed.",
    },
)
say_enum(
    RefundCode,
    {
        "ALLOWED": "The rules allow it.",
        "NOT_REFUNDABLE": "It is no payment that succeeded.",
        "NOTHING_LEFT": "All of it went back, was credited, or is asked for already.",
        "DISPUTED": "The bank is looking into it: until it has decided, nothing goes back.",
        "NOT_A_DUPLICATE": "Nothing of it was paid twice.",
        "NO_SUCH_LINES": "None of the lines named is left to be credited.",
        "NO_SUCH_TIME": "Nothing that is paid by time was sold for that time.",
        "ANNUAL_PLAN": "Annual plans give no goodwill, and nothing for time to come.",
        "TOO_OLD": "The charge is older than seven days.",
        "ABOVE_MAXIMUM": "More was asked for than the rules allow.",
    },
)
say_enum(
    RefundDecision,
    {
        "APPROVE": "It goes back the way it came.",
        "CREDIT": "It is given as credit, which pays the next invoices.",
        "DENY": "It is not given.",
    },
)
say_enum(
    SandboxAnswers,
    {
        "NORMAL": "As the test card says.",
        "HANGS": "Nothing happens, and no answer comes.",
        "LOST_AFTER_EFFECT": "It happens, and the answer is lost.",
        "OTHER_AMOUNT": "The answer names another amount than was asked for.",
    },
)
say_enum(
    SandboxMessages,
    {
        "ONCE": "Each message once, in order.",
        "TWICE_SHUFFLED": "Each message twice, in any order.",
        "NONE": "No messages.",
    },
)
say_enum(PaymentMethodKind, {"CARD": "A credit or debit card."})
say_enum(
    BudgetScope,
    {
        "ACCOUNT": "All spend of the account.",
        "METRIC": "Overage and add-ons of one metric.",
        "WORKSPACE": "What the events of one workspace cost.",
    },
)
say_enum(
    BudgetAction,
    {
        "ALERT_ONLY": "Tell, and let usage go on.",
        "BLOCK_OVERAGE": "Refuse usage that would cost more.",
        "UPGRADE": "Change to the next plan, once per period.",
    },
)
say_enum(
    Granularity,
    {
        "HOUR": "Hours of the account's zone.",
        "DAY": "Days of the account's zone.",
        "MONTH": "Calendar months of the account's zone.",
    },
)
say_enum(
    ExportKind,
    {
        "USAGE": "How much of each metric was used, by bucket and workspace.",
        "SPEND": "What was spent, accrued, by day, metric, workspace and kind of line; by DAY.",
        "FOCUS": "What was invoiced and credited, line by line with its tax, in the columns of FOCUS 1.2, the FinOps "
        "Open Cost and Usage Specification.",
        "INVOICES": "Invoices, by when they were issued.",
        "INVOICE_LINES": "The lines of invoices.",
        "CREDIT_NOTES": "Credit notes, by when they were issued.",
        "TRANSACTIONS": "Payments, refunds, credits and disputes, by when they began.",
        "LEDGER": "The books: each posting of each entry.",
        "TAX": "The tax rows of invoices and, negative, of credit notes.",
        "AUDIT": "The audit log; without an account the deployment's own.",
        "DOCUMENTS": "The PDFs of invoices, credit notes and receipts, as a ZIP with an index.",
        "RECEIVABLES_AGING": "Without an account, for operators: who owed how much for how long at `to`.",
        "DEFERRED_REVENUE": "Without an account, for operators: what was invoiced and not earned at `to`, by line.",
        "TAX_REPORT": "Without an account, for operators: tax by seller, jurisdiction, category and rate.",
    },
)
say_enum(
    SpendBasis,
    {
        "ACCRUED": "What counts for budgets, when it does: usage as it is used, plans and add-ons as periods begin.",
        "INVOICED": "The lines of invoices that stand, on the day on which these were issued.",
    },
)
say_enum(
    SpendGroup,
    {
        "METRIC": "By the metric that it is paid for; plans are for none.",
        "WORKSPACE": "By the workspace that events name. Lines of invoices name none.",
        "DAY": "By the day in the account's zone.",
        "LINE_KIND": "By the kind of the line that charges for it; usage is OVERAGE.",
    },
)
say_enum(
    ExportFormat,
    {
        "CSV": "A table for programs and spreadsheets: UTF-8, separated by commas, a header first.",
        "XLSX": "A sheet for Excel and its like, a header first. What may not fit a number exactly is a text.",
        "PDF": "A report for people, with a chart for each metric, in the account's language. Of USAGE.",
        "ZIP": "An archive of files. Of DOCUMENTS.",
    },
)
say_enum(
    ExportStatus,
    {
        "PENDING": "Waits to be written, or is being written.",
        "READY": "Can be fetched until `expiresAt`.",
        "FAILED": "Could not be written: see `failure`, and ask for another.",
        "EXPIRED": "Its file was deleted; ask for it anew.",
    },
)
say_enum(
    WebhookEndpointStatus,
    {
        "ENABLED": "Events are sent to it.",
        "DISABLED": "Nothing is sent to it; what comes meanwhile it does not hear of.",
    },
    "WebhookEndpointStatus",
)
say_enum(
    WebhookDisabledReason,
    {
        "BY_HAND": "Somebody switched it off.",
        "GONE": "It answered 410, by which a receiver says that it wants nothing any more.",
        "FAILING": "No try has succeeded for five days.",
    },
    "WebhookDisabledReason",
)
say_enum(
    WebhookDeliveryStatus,
    {
        "PENDING": "It waits for its first try, or for another.",
        "SUCCEEDED": "It was answered with 2xx.",
        "FAILED": "It was given up: after three days, at a 410, or because its endpoint was deleted.",
    },
    "WebhookDeliveryStatus",
)
say_enum(
    ReservationStatus,
    {
        "HELD": "It holds what was reserved, until it expires.",
        "COMMITTED": "It became usage, or part of it did and the rest was given back.",
        "RELEASED": "It was given back.",
        "EXPIRED": "It ran out, and was given back.",
    },
)
say_enum(
    OveragePolicy,
    {
        "BLOCK": "Usage above the limit is refused.",
        "CHARGE": "Usage above the limit is charged by started blocks.",
        "ASK": "Usage above the limit is refused until somebody approves some blocks, or the rest of the period.",
        "ALLOW": "Usage above the limit is taken and never charged; set by operators.",
    },
)
say_enum(
    NextBillingKind,
    {
        "RENEWAL": "The plan's next period, with what else is due then.",
        "ADD_ONS": "Add-ons of the next usage period, under an annual plan.",
        "OVERAGE": "Overage alone, under an annual plan.",
        "TRIAL_END": "The first period after the trial.",
        "FINAL": "The last charge of a cancelled subscription.",
    },
)
say_enum(
    EventStatus,
    {
        "ACCEPTED": "Counted, now and for good.",
        "DUPLICATE": "The same event was accepted before: nothing was counted twice.",
        "REJECTED": "Not counted: see `code` and `message`.",
    },
    name="UsageEventStatus",
)
say_enum(
    RejectionCode,
    {
        "CONFLICT": "The event id was used with other content: send a new event with a new id.",
        "UNKNOWN_ACCOUNT": "No such account for this caller: check `accountId` or `externalId`.",
        "UNKNOWN_METRIC": "No such metric: `metrics` lists them.",
        "BUDGET_EXCEEDED": "It would cost more than a budget leaves room for: `budgetId` names it.",
        "LIMIT_EXCEEDED": "The limit would be passed, and the policy in force is BLOCK: raise the limit first.",
        "OVERAGE_APPROVAL_REQUIRED": "The limit would be passed, and the policy is ASK: see `approveOverage`.",
        "ACCOUNT_SUSPENDED": "The account is suspended: retry once its invoices are paid.",
        "ACCOUNT_CANCELED": "The account takes no more usage; until it is expired or closed, operators lower gauges.",
        "IN_FUTURE": "More than five minutes ahead: check the sender's clock, then send again.",
        "TOO_OLD": "Its usage period ended more than 35 days ago, or lies before the first.",
        "INVALID_QUANTITY": "Quantity or level is missing, out of range, or not this caller's to send.",
        "NEGATIVE_USAGE": "The figure would fall below 0.",
        "INVALID_EVENT": "The event id or a property is malformed.",
    },
    name="UsageRejectionCode",
)
say_enum(
    ChangeKind,
    {
        "ALERT": "An alert was raised, acknowledged or resolved: `node` is the alert as it is now.",
        "USAGE": "A metric's figure moved: `node` is the figure as it is now.",
        "INVOICE": "An invoice was finalised, paid, not paid or withdrawn: `node` is the invoice as it is now.",
        "TRANSACTION": "A payment, refund or dispute moved: `node` is the transaction as it is now.",
        "SUBSCRIPTION": "The plan started, changed or ended: `node` is the subscription as it is now.",
        "PAYMENT_METHOD": "A payment method came, went or expires soon: `node` is the method as it is now.",
        "EXPORT": "An export gets on, is ready, or failed: `node` is the export as it is now.",
        "NOTICE": "A banner came, says something else, or is gone: `node` is the notice as it is now, null when gone.",
        "BUDGET": "A budget was set or removed, or what is spent of it moved: `node` is the budget as it is now.",
        "COMPANY": "The company or what frees it from tax changed, or the account was closed or its data deleted: "
        "`node` is the account, which has both.",
        "RECOMMENDATION": "A recommendation was put away or followed: `node` is the account, with those that stand.",
        "MEMBER": "Members, invitations, or whose the account is: read them from `node`, the account.",
        "SNAPSHOT": "The stream starts here: read the page again, then apply what follows. What is selected under the "
        "event's `account` is of this very place, also where queries read a replica that lags.",
        "GAP": "The cursor is older than what is kept: a SNAPSHOT follows.",
    },
)
say_enum(
    PrincipalKind,
    {
        "API_KEY": "A program with an API key.",
        "MEMBER": "A person of one or more accounts.",
        "OPERATOR": "A person of the vendor.",
    },
    name="ViewerKind",
)
say_enum(
    Action,
    {
        "RECORD_USAGE": "`recordUsage`, and reserving, committing and releasing.",
        "SET_OVERAGE_POLICY": "`setOveragePolicy`.",
        "APPROVE_OVERAGE": "`approveOverage`.",
        "UPDATE_ACCOUNT": "`updateBillingAccount`.",
        "UPDATE_COMPANY": "`updateCompany`.",
        "SET_ALERT_THRESHOLDS": "`setAlertThresholds`.",
        "SET_BUDGET": "`setBudget` and `removeBudget`.",
        "ACKNOWLEDGE_ALERTS": "`acknowledgeAlerts`.",
        "ADD_PAYMENT_METHOD": "`addPaymentMethod`.",
        "START_TRIAL": "`startTrial`.",
        "START_SUBSCRIPTION": "`startSubscription`.",
        "CHANGE_PLAN": "`changePlan`.",
        "SET_ADD_ON": "`setAddOn`.",
        "CANCEL_SUBSCRIPTION": "`cancelSubscription` at the period's end.",
        "CANCEL_NOW": "`cancelSubscription` at once.",
        "RESUME_SUBSCRIPTION": "`resumeSubscription`.",
        "REACTIVATE_SUBSCRIPTION": "`reactivateSubscription`.",
        "SET_TAX_EXEMPTION": "`setTaxExemption`.",
        "GRANT_CREDIT": "`grantCredit`.",
        "VOID_INVOICE": "`voidInvoice`.",
        "ISSUE_CREDIT_NOTE": "`issueCreditNote`.",
        "CREATE_PAYMENT_SETUP": "`createPaymentSetup`.",
        "SET_DEFAULT_PAYMENT_METHOD": "`setDefaultPaymentMethod`.",
        "REMOVE_PAYMENT_METHOD": "`removePaymentMethod`.",
        "RETRY_PAYMENT": "`retryPayment`.",
        "CONFIRM_PAYMENT": "`confirmPayment`.",
        "RECORD_PAYMENT": "`recordPayment`.",
        "REQUEST_REFUND": "`requestRefund`.",
        "REVIEW_REFUND": "`reviewRefund`.",
        "REQUEST_EXPORT": "`requestExport`.",
        "INVITE_MEMBER": "`inviteMember` and `resendInvite`.",
        "SET_MEMBER_ROLE": "`setMemberRole`.",
        "REMOVE_MEMBER": "`removeMember`; oneself one may always remove, but for the last owner.",
        "TRANSFER_OWNERSHIP": "`transferOwnership`.",
        "ACCEPT_OWNERSHIP": "`acceptOwnership`.",
        "MANAGE_CONTACTS": "`addContact`, and all that changes a contact.",
        "MANAGE_WEBHOOKS": "`createWebhookEndpoint`, and all that changes an endpoint.",
        "CREATE_API_KEY": "`createApiKey`.",
        "ROTATE_API_KEY": "`rotateApiKey`.",
        "REVOKE_API_KEY": "`revokeApiKey`.",
        "APPLY_RECOMMENDATION": "`applyRecommendation`.",
        "DISMISS_RECOMMENDATION": "`dismissRecommendation`.",
        "CLOSE_ACCOUNT": "`closeBillingAccount`.",
        "SET_LEGAL_HOLD": "`setLegalHold`.",
    },
)
say_enum(
    InvoiceKind,
    {
        "START": "A start, the end of a trial, or a reactivation.",
        "CHANGE": "A change of plan that took effect at once.",
        "ADD_ON": "Add-ons that were added.",
        "PERIOD": "The close of a usage period.",
        "FINAL": "The last close after a cancellation, and what came late after it.",
    },
)
say_enum(
    ChangeAct,
    {
        "START": "The start of a subscription.",
        "CHANGE_PLAN": "Another plan or interval.",
        "SET_ADD_ON": "More units of an add-on.",
        "REACTIVATE": "A new start after a cancellation.",
    },
)
say_enum(
    LedgerAccount,
    {
        "RECEIVABLES": "What customers owe.",
        "CASH": "What came in.",
        "DEFERRED": "Invoiced, but not earned yet.",
        "REVENUE": "Earned.",
        "TAX": "Owed to the tax office.",
        "CUSTOMER_CREDIT": "What customers have in hand.",
        "REFUNDS_PAYABLE": "What has to go back.",
        "GOODWILL": "Credit that operators gave.",
        "BAD_DEBT": "Given up.",
        "DISPUTE_LOSSES": "Lost in disputes.",
    },
)
say_enum(
    WorkKind,
    {
        "EXPIRE_PENDING": "To give up a change that nobody paid.",
        "CLOSE_PERIOD": "To close a usage period.",
        "END_TRIAL": "To end a trial.",
        "FINALISE_INVOICE": "To number and freeze an invoice.",
        "INVOICE_CORRECTIONS": "To invoice what came late after a cancellation.",
        "CHARGE": "To charge an invoice or a change.",
        "EXPIRE_ACCOUNT": "To delete the data of what is long over.",
        "PURGE": "To delete what was kept long enough.",
        "REMIND": "To tell what is ahead.",
        "DRAW_DOCUMENT": "To draw a document.",
        "WRITE_EXPORT": "To write the file of an export.",
        "OVERDUE": "Notes that an invoice was not paid in time.",
        "EXPIRE_ACTION": "Gives up a charge that nobody confirmed.",
        "TRY_PAYMENT": "Charges what is open again.",
        "REFUND": "Pays a refund.",
        "SUSPEND": "Suspends an account that did not pay.",
        "GIVE_UP": "Ends the subscription of an account that did not pay.",
        "RECKON_SPEND": "Reckons what is spent anew, after the price of overage changed.",
        "UPGRADE_PLAN": "Changes to the next plan, because a budget is spent.",
    },
)
say_enum(
    EntryKind,
    {
        "FINALISE": "An invoice was issued.",
        "RECOGNITION": "Time earned what was deferred.",
        "PAYMENT": "Money came in.",
        "CREDIT_NOTE": "A credit note was issued.",
        "BALANCE_APPLIED": "The credit balance paid an invoice.",
        "BALANCE_RETURNED": "What the balance had paid of a withdrawn invoice went back to it.",
        "REFUND": "Money went back.",
        "WRITE_OFF": "What is owed was given up.",
        "GRANT_CREDIT": "An operator gave credit.",
        "BROUGHT_FORWARD": "What older entries left, after their years were over.",
        "GRANT_OWED": "What was owed back, given as credit.",
        "DISPUTE_LOST": "A dispute that was lost.",
    },
)
say_enum(
    RecommendationKind,
    {
        "SWITCH_TO_ANNUAL": "The present plan, paid by the year.",
        "SMALLER_PLAN": "Another plan of the same or a lower tier, under which every month would have held.",
        "LARGER_PLAN": "A plan of a higher tier, which costs less than overage and add-ons do now.",
        "UNUSED_ADD_ON": "Fewer units of an add-on: those beyond what was used, such as seats, workspaces or blocks.",
        "ADD_ON_FOR_OVERAGE": "More units of an add-on, which cost less than the overage that they take the place of.",
        "SEND_LESS": "The workspace that grew most: what it would save to be back at its former use. Nothing to order.",
    },
)
say_enum(
    RecommendedActionKind,
    {
        "UPGRADE_PLAN": "Change to a plan with a higher limit.",
        "CHANGE_BUDGET": "Raise the budget, or let it do something else when it is spent.",
        "REDUCE_USAGE": "Use less: give back what a gauge counts; a counter starts anew with its period.",
    },
)
say_enum(
    AlertChannel,
    {
        "LIVE": "The account's stream, and what else reads the outbox: `accountChanged`, `alertRaised`, `events`.",
        "NOTICE": "The banner of the metric, which speaks of its highest open alert.",
    },
)
say_enum(
    DeliveryStatus,
    {
        "DELIVERED": "It is there, once.",
        "MISSING": "It is not there, and should be.",
        "TWICE": "It is there more than once.",
        "ENDED": "It was taken away with its cause: the alert is resolved.",
        "EXPIRED": "It is older than what is kept.",
    },
    name="AlertDeliveryStatus",
)
say_enum(
    CollectionMethod,
    {
        "AUTOMATIC": "Due at once, and charged to the payment method.",
        "SEND_INVOICE": "Sent, and paid by transfer within `netDays`.",
    },
)
say_enum(PaperSize, {"A4": "210 by 297 millimetres.", "LETTER": "8.5 by 11 inches."})
say_enum(
    Environment,
    {"SANDBOX": "For trying out: no money moves.", "PRODUCTION": "Money is real."},
)
say_enum(
    UserErrorCode,
    {
        "INVALID": "The input does not fit: `message` says how to mend it.",
        "NOT_FOUND": "Nothing with that id that you may see.",
        "CONFLICT": "It clashes with what is there, or with what is being done right now.",
        "COMPANY_REQUIRED": "The first invoice needs the company's name and address: `updateCompany` sets them.",
        "PRICE_NOT_AVAILABLE": "It is not sold in the account's currency or at that interval.",
        "INVALID_TRANSITION": "The subscription's state does not allow it.",
        "LIMITS_EXCEEDED": "What is in use would exceed the new limits: `message` lists what to reduce.",
        "CHANGE_PENDING": "Another change waits for its payment: finish or cancel that one first.",
        "QUOTE_EXPIRED": "The quote is older than 30 minutes: ask for a new one.",
        "QUOTE_STALE": "The subscription changed since the quote was made: ask for a new one.",
        "PAYMENT_FAILED": "The charge was declined, and nothing was changed.",
        "PAYMENT_REQUIRED": "Something has to be paid, or a payment method added, first.",
        "ACCOUNT_SUSPENDED": "The account is suspended until it is paid.",
        "ACCOUNT_CANCELED": "The account's subscription is over: reactivate it first.",
        "INVOICE_PAID": "A paid or credited invoice cannot be withdrawn: credit it instead.",
        "REFUND_NOT_ALLOWED": "There is nothing that could go back, or not so much.",
        "LAST_OWNER": "The account would be left without an owner: hand the ownership over first.",
        "FORBIDDEN": "Your role or scopes do not allow it.",
        "BUDGET_EXCEEDED": "A budget that stops overage leaves no room for what it would cost: raise the budget.",
        "LIMIT_EXCEEDED": "The limit holds, and would be passed: less, or a larger plan or add-on.",
        "OVERAGE_APPROVAL_REQUIRED": "The limit would be passed, and nobody approved that yet: `approveOverage` does.",
        "RESERVATION_EXPIRED": "What was reserved is not held any more: reserve anew.",
        "IDEMPOTENCY_MISMATCH": "The idempotency key was used with another input: take a new key.",
        "IDEMPOTENCY_IN_FLIGHT": "The first request with this key is still under way: ask again in a moment.",
    },
)
say_enum(Right, {right.name: f"Over {meaning}." for right, meaning in MEANINGS.items()})
say_enum(
    ApiKeyStatus,
    {
        "ACTIVE": "Good, as long as whoever made it has access.",
        "EXPIRED": "Ended by itself.",
        "REVOKED": "Ended by somebody.",
    },
    name="ApiKeyStatus",
)
say_enum(
    ContactTopic,
    {
        "INVOICES": "Invoices with their PDF, credit notes, and renewals ahead.",
        "PAYMENT_FAILURES": "Payments that failed or went through after all, cards that expire, and refunds.",
        "USAGE_ALERTS": "Usage and budgets that reach a threshold, and unusual days.",
        "SUBSCRIPTION_CHANGES": "A plan that starts, changes or ends, and trials that end soon.",
    },
)
say_enum(
    AlertDelivery,
    {
        "AT_ONCE": "A mail for each alert; of several at once only the highest.",
        "DAILY": "All of a day in one mail, in the morning of the account's zone.",
    },
    name="AlertTiming",
)
