"""That this process was told to end: nothing new is begun, and what runs is brought to its end."""

import asyncio
from contextlib import suppress


class Stopping:
    """Begins once, and does not end."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self.is_hurried = False
        """Whether nothing is waited for any more."""

    @property
    def has_begun(self) -> bool:
        """Whether it has begun."""
        return self._begun.is_set()

    def begin(self) -> None:
        """Tell everybody."""
        self._begun.set()

    def hurry(self) -> None:
        """Tell everybody not to wait for what runs."""
        self.is_hurried = True
        self.begin()

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not past its beginning."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._begun.wait()
