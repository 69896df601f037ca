"""What stands in the processor's place where none is configured: accounts that pay by transfer need none."""

from ..services.ports import ChargeOrder, ChargeResult, MethodFacts, ProcessorFailed


class NoProcessor:
    """Says of each call that there is nobody to answer it."""

    async def read_method(self, token: str) -> MethodFacts | None:  # noqa: ARG002
        """Refuse: nobody knows payment methods."""
        raise ProcessorFailed("no payment processor is configured")

    async def charge(self, order: ChargeOrder) -> ChargeResult:  # noqa: ARG002
        """Refuse: nobody collects."""
        raise ProcessorFailed("no payment processor is configured")

    async def find(self, key: str) -> ChargeResult | None:  # noqa: ARG002
        """Refuse: nobody collected."""
        raise ProcessorFailed("no payment processor is configured")

    async def look_up(self, processor_id: str) -> ChargeResult:  # noqa: ARG002
        """Refuse: nobody collected."""
        raise ProcessorFailed("no payment processor is configured")

    async def cancel(self, processor_id: str) -> ChargeResult:  # noqa: ARG002
        """Refuse: nobody collected."""
        raise ProcessorFailed("no payment processor is configured")
