"""What stands in the processor's place where none is configured: accounts that pay by transfer need none."""

from typing import NoReturn

from ..services.ports import (
    ChargeOrder,
    ChargeResult,
    DisputeFacts,
    MethodFacts,
    ProcessorFailed,
    RefundOrder,
    RefundResult,
    Setup,
)


class NoProcessor:
    """Says of each call that there is nobody to answer it."""

    async def open_customer(self, key: str, name: str) -> str:  # noqa: ARG002
        """Refuse: nobody knows customers."""
        _refuse()

    async def open_setup(self, customer: str) -> Setup:  # noqa: ARG002
        """Refuse: nobody takes cards."""
        _refuse()

    async def attach_method(self, customer: str, token: str) -> MethodFacts | None:  # noqa: ARG002
        """Refuse: nobody knows payment methods."""
        _refuse()

    async def read_method(self, token: str) -> MethodFacts | None:  # noqa: ARG002
        """Refuse: nobody knows payment methods."""
        _refuse()

    async def detach_method(self, token: str) -> None:  # noqa: ARG002
        """Refuse: nobody knows payment methods."""
        _refuse()

    async def charge(self, order: ChargeOrder) -> ChargeResult:  # noqa: ARG002
        """Refuse: nobody collects."""
        _refuse()

    async def find(self, order: ChargeOrder) -> ChargeResult | None:  # noqa: ARG002
        """Refuse: whoever collected is not asked any more."""
        _refuse()

    async def look_up(self, processor_id: str) -> ChargeResult | None:  # noqa: ARG002
        """Refuse: whoever collected is not asked any more."""
        _refuse()

    async def cancel(self, processor_id: str) -> ChargeResult:  # noqa: ARG002
        """Refuse: whoever collected is not asked any more."""
        _refuse()

    async def refund(self, order: RefundOrder) -> RefundResult:  # noqa: ARG002
        """Refuse: nobody pays back."""
        _refuse()

    async def find_refund(self, order: RefundOrder) -> RefundResult | None:  # noqa: ARG002
        """Refuse: whoever paid back is not asked any more."""
        _refuse()

    async def look_up_refund(self, processor_id: str) -> RefundResult | None:  # noqa: ARG002
        """Refuse: whoever paid back is not asked any more."""
        _refuse()

    async def look_up_dispute(self, processor_id: str) -> DisputeFacts | None:  # noqa: ARG002
        """Refuse: whoever knew of disputes is not asked any more."""
        _refuse()


def _refuse() -> NoReturn:
    raise ProcessorFailed("no payment processor is configured")
