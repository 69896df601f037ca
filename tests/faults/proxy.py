"""A way to PostgreSQL that can be cut: for good, or at the moment at which something is said."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto

from sqlalchemy import make_url


class When(Enum):
    """On which side of the database's work the way is cut."""

    BEFORE = auto()
    """It never hears of it."""
    AFTER = auto()
    """It does it, and its answer is lost."""


@dataclass
class Cut:
    """What is waited for, the how-manieth time, and whether it came."""

    words: bytes
    when: When
    nth: int = 1
    came: asyncio.Event = field(default_factory=asyncio.Event)


class Way:
    """Carries bytes between clients and the database, and watches for what it is to cut at."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._cut: Cut | None = None
        self.is_open = True

    def cut_at(self, words: bytes, when: When, nth: int = 1) -> Cut:
        """Cut one connection when a client says this for the nth time."""
        self._cut = Cut(words, when, nth)
        return self._cut

    def close(self) -> None:
        """Cut all connections, and take no more."""
        self.is_open = False
        for pair in list(self._pairs):
            _drop(*pair)

    def open(self) -> None:
        """Take connections again."""
        self.is_open = True

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until one side leaves."""
        if not self.is_open:
            writer.close()
            return
        try:
            there, here = await asyncio.open_connection(*self._to)
        except OSError:
            writer.close()
            return
        pair = (writer, here)
        self._pairs.add(pair)
        back = asyncio.create_task(_pump(there, writer))
        self._tasks.add(back)
        back.add_done_callback(self._tasks.discard)
        try:
            while said := await reader.read(65_536):
                cut = self._watch(said)
                if cut is not None and cut.when is When.AFTER:
                    # The answer comes to nobody.
                    back.cancel()
                    await asyncio.wait([back])
                    here.write(said)
                    await there.read(65_536)
                if cut is not None:
                    cut.came.set()
                    break
                here.write(said)
                await here.drain()
        except OSError:
            pass
        finally:
            back.cancel()
            self._pairs.discard(pair)
            _drop(*pair)

    def _watch(self, said: bytes) -> Cut | None:
        cut = self._cut
        if cut is None or cut.words not in said:
            return None
        cut.nth -= 1
        if cut.nth:
            return None
        self._cut = None
        return cut


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while said := await reader.read(65_536):
            writer.write(said)
            await writer.drain()
    writer.close()


def _drop(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.transport.abort()


@asynccontextmanager
async def open_way(address: str) -> AsyncGenerator[tuple[Way, str]]:
    """A way to a database, and the address that leads over it."""
    url = make_url(address)
    way = Way(url.host or "127.0.0.1", url.port or 5432)
    server = await asyncio.start_server(way.carry, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    plain = {"sslmode": "disable", "gssencmode": "disable"}
    try:
        async with server:
            over = url.set(host="127.0.0.1", port=port).update_query_dict(plain)
            yield way, over.render_as_string(hide_password=False)
    finally:
        way.close()
