"""The event bus of one process."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager

LOOK_AGAIN_S = 5.0
"""How often readers look where nobody tells them of other processes."""


class Wakeup:
    """A flag that a publisher sets and one reader takes: however many wake-ups came, it holds one."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake the reader."""
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a wake-up, at most so long; False when none came."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class InProcessBus:
    """Wakes the readers of this process, without a server."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[Wakeup]] = defaultdict(set)

    @property
    def look_again_s(self) -> float:
        """It reaches nobody else: other processes are heard of by looking."""
        return LOOK_AGAIN_S

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """There is nobody to talk with."""
        yield

    def publish_all(self, topics: Iterable[str]) -> None:
        """Wake all who listen to any of these."""
        for topic in topics:
            self.publish(topic)

    def publish(self, topic: str) -> None:
        """Wake all who listen to a topic."""
        for wakeup in self._listeners.get(topic, ()):
            wakeup.ring()

    @contextmanager
    def listen(self, *topics: str) -> Generator[Wakeup]:
        """Listen to topics until the block ends."""
        wakeup = Wakeup()
        for topic in topics:
            self._listeners[topic].add(wakeup)
        try:
            yield wakeup
        finally:
            for topic in topics:
                self._listeners[topic].discard(wakeup)
                if not self._listeners[topic]:
                    del self._listeners[topic]

    def count_listeners(self, topic: str) -> int:
        """How many listen to a topic now."""
        return len(self._listeners.get(topic, ()))
