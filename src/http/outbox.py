"""What waits to go out on one socket: bounded, so that a reader who is slow costs little, and nobody waits for it."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator, MutableMapping
from typing import Any

from starlette.websockets import WebSocketDisconnect

MAX_WAITING = 64
"""How many frames wait at most."""
MAX_CHARACTERS = 128 * 1024
"""How much text waits at most, unless it is one frame that is longer."""
STALL_S = 30.0
"""How long a socket may take nothing of what waits."""

GONE = (WebSocketDisconnect, RuntimeError, OSError)
"""Closed from one side or the other: whoever receives from the socket hears of it, and ends everything."""

Send = Callable[[MutableMapping[str, Any]], Coroutine[Any, Any, None]]


class Rest:
    """The rest of a call that was begun outside of a task, and waits for something."""

    __slots__ = ("_step", "_waits_for")

    def __init__(self, step: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._step = step
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        waits_for = self._waits_for
        try:
            while True:
                try:
                    given = yield waits_for
                except BaseException as error:  # also that the task is cancelled: the call is told
                    waits_for = self._step.throw(error)
                else:
                    waits_for = self._step.send(given)
        except StopIteration:
            return


class Outbox:
    """The frames of one socket, written in order: at once, or by a task that lives only while some wait."""

    __slots__ = ("_characters", "_room", "_send", "_stalled", "_waiting", "_writer", "is_closed")

    def __init__(self, send: Send, stalled: Callable[[], None]) -> None:
        self._send = send
        self._stalled = stalled
        self._waiting: deque[str] = deque()
        self._characters = 0
        self._writer: asyncio.Task[None] | None = None
        self._room: asyncio.Event | None = None
        self.is_closed = False

    def offer(self, frame: str) -> bool:
        """Take a frame; false where there is no room. What is closed takes all, and sends nothing."""
        is_full = len(self._waiting) >= MAX_WAITING or self._characters + len(frame) > MAX_CHARACTERS
        if self._writer is not None and is_full and not self.is_closed:
            return False
        self.push(frame)
        return True

    def push(self, frame: str) -> None:
        """Take a short frame, room or not: the word that something has ended."""
        if self.is_closed:
            return
        if self._writer is None:
            self._write_now(frame)
        else:
            self._waiting.append(frame)
            self._characters += len(frame)

    async def put(self, frame: str) -> None:
        """Take a frame as soon as there is room."""
        while not self.offer(frame):
            await self.wait_for_room()

    async def wait_for_room(self) -> None:
        """Wait until the writer has taken everything, or will take nothing any more."""
        while self._writer is not None and not self.is_closed:
            if self._room is None:
                self._room = asyncio.Event()
            await self._room.wait()

    async def finish(self, within_s: float) -> None:
        """Take no more, and wait a little for what is there to go out."""
        writer = self._writer
        self.is_closed = True
        if writer is not None:
            await asyncio.wait([writer], timeout=within_s)
        self.close()

    def close(self) -> None:
        """Send nothing any more."""
        self.is_closed = True
        self._waiting.clear()
        if self._writer is not None:
            self._writer.cancel()
        self._tell()

    def _write_now(self, frame: str) -> None:
        # Nearly always the server takes a frame without waiting. Then no task is made for it: with thousands of
        # sockets, that is most of the work.
        step = self._send({"type": "websocket.send", "text": frame})
        try:
            waits_for = step.send(None)
        except StopIteration:
            return
        except GONE:
            self.is_closed = True
            return
        self._writer = asyncio.get_running_loop().create_task(self._write(Rest(step, waits_for)))

    async def _write(self, begun: Rest) -> None:
        try:
            async with asyncio.timeout(STALL_S):
                await begun
            while self._waiting:
                frame = self._waiting.popleft()
                self._characters -= len(frame)
                async with asyncio.timeout(STALL_S):
                    await self._send({"type": "websocket.send", "text": frame})
        except TimeoutError:
            self.is_closed = True
            self._waiting.clear()
            self._stalled()
        except GONE:
            self.is_closed = True
            self._waiting.clear()
        finally:
            self._writer = None
            self._tell()

    def _tell(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None
