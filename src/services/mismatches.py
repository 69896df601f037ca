"""What the processor says, where it is not what we asked for: nothing of it is booked silently."""

from ..database import Work
from ..models import BillingAccount, NoticeSeverity, Transaction
from .notices import raise_notice


async def flag_mismatch(
    work: Work, account: BillingAccount, transaction: Transaction, told_minor: int, told_currency: str
) -> None:
    """Tell operators that the processor speaks of another amount than ours."""
    await raise_notice(
        work,
        account,
        "PAYMENT_MISMATCH",
        str(transaction.id),
        severity=NoticeSeverity.CRITICAL,
        params={
            "expectedMinor": transaction.amount_minor,
            "expectedCurrency": transaction.currency,
            "toldMinor": told_minor,
            "toldCurrency": told_currency,
        },
        for_operators=True,
    )
