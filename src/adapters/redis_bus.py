"""The event bus over Redis: wakes the readers of this process at once, and those of all others through the server."""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from .bus import InProcessBus

CHANNEL = "plafond:wake"
MAX_UNSENT = 10_000
"""How many topics wait for a server that is away or slow. Beyond that all readers everywhere look."""
MAX_TOPICS = 500
"""How many topics one message names."""
EVERYTHING = "*"
"""Stands for all topics: something was lost."""
ANSWER_S = 5.0
"""How long the server may take to answer, or to say that it is there."""
TRUST_S = 15.0
"""How often readers look while the server tells of everybody: it promises nothing."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0

log = logging.getLogger("plafond.redis_bus")


class RedisBus(InProcessBus):
    """Wake-ups by pub/sub, over two connections for each process: one hears, one tells.

    Redis keeps nothing of them. What is lost with it costs time only: rows are the truth, and readers look again.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._redis = Redis.from_url(
            url,
            socket_timeout=ANSWER_S,
            socket_connect_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 0),
            max_connections=2,
            client_name="plafond",
        )
        self._name = secrets.token_hex(8)
        self._unsent: dict[str, None] = {}
        self._has_unsent = asyncio.Event()
        self.is_connected = False

    @property
    def look_again_s(self) -> float:
        """Longer while the server tells us of everybody."""
        return TRUST_S if self.is_connected else super().look_again_s

    def publish(self, topic: str) -> None:
        """Wake those of this process now, and tell the others as soon as the server takes it."""
        super().publish(topic)
        if len(self._unsent) >= MAX_UNSENT:
            self._unsent = {EVERYTHING: None}
        self._unsent[topic] = None
        self._has_unsent.set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Talk with the server until the block ends; what is unsent then is sent if it answers."""
        tasks = [asyncio.create_task(self._hear()), asyncio.create_task(self._tell())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            with suppress(RedisError, OSError):
                await self._send_unsent()
            await self._redis.aclose()

    async def _hear(self) -> None:
        """Listen for ever. What was missed in between is not known, so that all readers look."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                async with self._redis.pubsub() as subscription:
                    await subscription.subscribe(CHANNEL)
                    await self._wait_for_answer(subscription)
                    self._change(is_connected=True)
                    pause_s = FIRST_PAUSE_S
                    await self._listen(subscription)
            except (RedisError, OSError) as error:
                if self.is_connected:
                    log.warning("Redis is away, and is asked again: %s", error)
                self._change(is_connected=False)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _change(self, *, is_connected: bool) -> None:
        if self.is_connected != is_connected:
            self.is_connected = is_connected
            self._wake_all()
            if is_connected:
                self._has_unsent.set()

    async def _wait_for_answer(self, subscription: PubSub) -> None:
        if await subscription.get_message(timeout=ANSWER_S) is None:
            raise TimeoutError("it does not answer")

    async def _listen(self, subscription: PubSub) -> None:
        while True:
            message = await subscription.get_message(timeout=ANSWER_S)
            if message is None:
                await subscription.ping()
                message = await subscription.get_message(timeout=ANSWER_S)
                if message is None:
                    raise TimeoutError("it does not answer")
            if message["type"] == "message":
                self._take(message["data"])

    def _take(self, data: bytes) -> None:
        sender, *topics = data.decode(errors="replace").split("\n")
        if sender == self._name:
            return
        for topic in topics:
            if topic == EVERYTHING:
                self._wake_all()
            else:
                super().publish(topic)

    def _wake_all(self) -> None:
        for topic in tuple(self._listeners):
            super().publish(topic)

    async def _tell(self) -> None:
        """Send what is unsent, for ever. A server that is away gets it when it is back."""
        while True:
            await self._has_unsent.wait()
            self._has_unsent.clear()
            try:
                await self._send_unsent()
            except (RedisError, OSError):
                # The listener says so in the log, and rings here when the server is back.
                await asyncio.sleep(FIRST_PAUSE_S)
                if self.is_connected:
                    self._has_unsent.set()

    async def _send_unsent(self) -> None:
        while self._unsent:
            topics = list(self._unsent)[:MAX_TOPICS]
            # Taken out first: what is published meanwhile is sent once more.
            for topic in topics:
                del self._unsent[topic]
            try:
                await self._redis.publish(CHANNEL, "\n".join((self._name, *topics)))
            except BaseException:
                self._unsent |= dict.fromkeys(topics)
                raise
