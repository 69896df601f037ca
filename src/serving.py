"""Serving until told to stop, and stopping so that nobody notices; several processes on one port, if wanted."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

import uvicorn
from starlette.applications import Starlette

from .http.wire import SocketProtocol
from .stopping import Stopping

GRACE_S = 10
"""How long requests under way, and a piece of due work, may take when the process is to end."""
LOOK_S = 0.1
LONG_ENOUGH_S = 10.0
"""A process that lived so long was no failed start."""
MOST_PAUSE_S = 30.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger("plafond.serving")


class PortInUse(Exception):
    """Somebody else listens there. Its text says what to do."""


def bind_port(host: str, port: int) -> socket.socket:
    """Take the port before anything else is done, so that a taken one is told at once."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise PortInUse(
            f"{host}:{port} cannot be listened on ({error.strerror}): take another port, such as "
            f"`PORT={port + 1 if port < 65535 else 8000} make run` (`plafond serve` takes PLAFOND_PORT)."
        ) from error
    return listener


def make_config(app: Starlette) -> uvicorn.Config:
    """How uvicorn serves the application."""
    return uvicorn.Config(
        app,
        log_level="warning",
        ws=SocketProtocol,
        ws_max_size=1024 * 1024,
        ws_per_message_deflate=False,  # it takes twice the memory, and the same frame is squeezed for each reader
        timeout_graceful_shutdown=GRACE_S,
        # uvicorn itself would believe whoever calls from this machine.
        proxy_headers=bool(app.state.trusted_proxies),
        forwarded_allow_ips=list(app.state.trusted_proxies),
    )


class Sockets(Protocol):
    """Those that are open."""

    @property
    def is_answering(self) -> bool:
        """Whether a query or a mutation is under way on one."""
        ...

    async def close_all(self) -> None:
        """Close them, so that their clients come back elsewhere."""
        ...


@dataclass
class Parent:
    """Whoever started this process."""

    pipe: int
    """Readable when it is gone."""
    said_stop: bool = False
    """Whether it said so before this process heard signals."""

    def note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Take a signal for later."""
        self.said_stop = True


class Server(uvicorn.Server):
    """Serves until SIGTERM. Then `/readyz` says no, and only after a moment nobody is let in any more.

    What is under way ends, within the grace. A second signal ends all of it at once.
    """

    def __init__(self, app: Starlette, drain_s: float, parent: Parent | None = None) -> None:
        super().__init__(make_config(app))
        self._stopping: Stopping = app.state.stopping
        self._sockets: Sockets = app.state.sockets
        self._drain_s = drain_s
        self._parent = parent

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Take a signal."""
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Take the signals while serving. They are not raised again: having stopped in order is a success."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        # Whoever was forked hears them only from here on.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self.should_exit = self.should_exit or (self._parent is not None and self._parent.said_stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin, and keep an eye on the parent."""
        await super().startup(sockets)
        if self._parent is not None:
            pipe, loop = self._parent.pipe, asyncio.get_running_loop()

            def follow() -> None:
                loop.remove_reader(pipe)
                self.should_exit = True

            loop.add_reader(pipe, follow)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End in order: not ready, then a moment for balancers to see it, then the sockets, then the rest."""
        self._stopping.begin()
        ends = time.monotonic() + self._drain_s
        while time.monotonic() < ends and not self.force_exit:  # noqa: ASYNC110 - a signal handler sets no event
            await asyncio.sleep(min(LOOK_S, self._drain_s))
        ends = time.monotonic() + GRACE_S
        while self._sockets.is_answering and time.monotonic() < ends and not self.force_exit:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._sockets.close_all()
        await super().shutdown(sockets)
        if self.force_exit:
            # Left out by uvicorn: whoever works is stopped in the middle, and connections are given back.
            self._stopping.hurry()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self.lifespan.shutdown()


def supervise(count: int, run: Callable[[int, Parent], None], listener: socket.socket) -> int:
    """Keep `count` processes running until told to stop; `run` is what each does, by its number and for whom.

    Whoever dies is started anew. Gives the exit code: 0 when all ended in order.
    """
    return _Supervisor(count, run, listener).watch()


class _Supervisor:
    """The parent: it serves nobody itself."""

    def __init__(self, count: int, run: Callable[[int, Parent], None], listener: socket.socket) -> None:
        self._run = run
        self._listener = listener
        # Nobody writes to it: it closes when this process ends, however it does.
        self._pipe, self._mine = os.pipe()
        self._numbers: dict[int, int] = {}
        """By process id."""
        self._starts: dict[int, float] = dict.fromkeys(range(count), 0.0)
        """When each is to be started, or was."""
        self._failures: dict[int, int] = dict.fromkeys(range(count), 0)
        self._is_stopping = False
        self._all_well = True

    def watch(self) -> int:
        """Start, wait, start again; until told to stop."""
        before = {number: signal.signal(number, self._pass_on) for number in SIGNALS}
        try:
            while self._numbers or not self._is_stopping:
                self._reap()
                self._start_missing()
                time.sleep(LOOK_S)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._pipe)
            os.close(self._mine)
        return 0 if self._all_well else 1

    def _pass_on(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._is_stopping = True
        # It is open in the others until they let nobody in any more; whoever knocks after that must not wait for us.
        self._listener.close()
        for pid in self._numbers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _start_missing(self) -> None:
        for number in set(self._starts) - set(self._numbers.values()):
            if time.monotonic() < self._starts[number]:
                continue
            # From the decision to the note of it no signal may pass unheard, nor in the child before it serves.
            held = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                if self._is_stopping:
                    return
                pid = os.fork()
                if pid == 0:
                    self._be_child(number)
                self._numbers[pid] = number
                self._starts[number] = time.monotonic()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def _be_child(self, number: int) -> None:
        code = 1
        try:
            os.close(self._mine)
            parent = Parent(self._pipe)
            for name in SIGNALS:
                signal.signal(name, parent.note)
            self._run(number, parent)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            log.exception("a process that serves failed")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        for pid, number in list(self._numbers.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            del self._numbers[pid]
            code = os.waitstatus_to_exitcode(status)
            if self._is_stopping:
                self._all_well = self._all_well and code == 0
                continue
            lived = time.monotonic() - self._starts[number]
            failures = self._failures[number] = 0 if lived > LONG_ENOUGH_S else self._failures[number] + 1
            pause = 0.0 if failures <= 1 else min(0.5 * 2.0 ** (failures - 2), MOST_PAUSE_S)
            log.warning("process %d ended with %d after %.1f s, and is started anew", pid, code, lived)
            self._starts[number] = time.monotonic() + pause
