"""Documents as PDF, drawn in processes of their own: a page that takes too much never takes the server along."""

import asyncio
import importlib
import logging
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from ..services.papers import Content, parse_content
from ..services.ports import DrawingFailed

log = logging.getLogger("plafond.pdf")

GivenT = TypeVar("GivenT", str, bytes)


class PdfPool:
    """Draws documents, so many at a time, each within its limits of time and memory.

    The processes start when they are first needed.
    """

    def __init__(self, *, workers: int = 1, seconds: float = 45, memory_bytes: int = 2 * 1024**3) -> None:
        self._seconds = seconds
        self._memory_bytes = memory_bytes
        self._is_closed = False
        self._idle: asyncio.LifoQueue[ProcessPoolExecutor] = asyncio.LifoQueue()
        self._workers = {self._make_worker() for _ in range(workers)}
        for worker in self._workers:
            self._idle.put_nowait(worker)

    async def draw(self, content: Content) -> bytes:
        """The PDF of a document. Refuses with `DrawingFailed`."""
        return await self._have_done(content.number, draw_document, content.model_dump_json())

    async def read_xml(self, pdf: bytes) -> bytes:
        """The XML inside a document that carries one. Refuses with `DrawingFailed`."""
        return await self._have_done("the XML of a document", read_xml, pdf)

    async def _have_done(self, what: str, task: Callable[[GivenT], bytes], given: GivenT) -> bytes:
        worker = await self._idle.get()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(worker, _do_in_time, task, given, self._seconds)
        except BrokenProcessPool as error:
            worker = self._replace(worker)
            reason = (
                f"its process ended: {self._seconds} s or {self._memory_bytes} bytes were not enough, or it was killed"
            )
            raise DrawingFailed(f"{what}: {reason}") from error
        except MemoryError as error:
            worker = self._replace(worker)
            raise DrawingFailed(f"{what}: {self._memory_bytes} bytes of memory were not enough") from error
        except Exception as error:
            raise DrawingFailed(f"{what}: {error!r}") from error
        finally:
            self._idle.put_nowait(worker)

    def close(self) -> None:
        """End the processes, and what they draw with them: whoever wanted it has it drawn again."""
        self._is_closed = True
        for worker in self._workers:
            for process in list((worker._processes or {}).values()):
                process.kill()
            # Waited for: the interpreter's own end must not meet a pool that is half gone.
            worker.shutdown(wait=True, cancel_futures=True)

    def _make_worker(self) -> ProcessPoolExecutor:
        # One process per pool: one that breaks fails its own document only.
        return ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_prepare, initargs=(self._memory_bytes,)
        )

    def _replace(self, worker: ProcessPoolExecutor) -> ProcessPoolExecutor:
        worker.shutdown(wait=False)
        if self._is_closed:
            return worker
        self._workers.discard(worker)
        fresh = self._make_worker()
        self._workers.add(fresh)
        return fresh


def draw_document(content: str) -> bytes:
    """The PDF of a document's content, given as JSON."""
    from .drawing import draw  # noqa: PLC0415  # the serving process never loads WeasyPrint

    return draw(parse_content(content))


def read_xml(pdf: bytes) -> bytes:
    """The XML inside a document."""
    from .drawing import read_xml  # noqa: PLC0415  # the serving process never loads factur-x

    return read_xml(pdf)


def _prepare(memory_bytes: int) -> None:
    """Set up a process of the pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    except (OSError, ValueError) as error:
        log.warning("the memory of the process that draws documents cannot be limited here: %r", error)
    importlib.import_module(f"{__package__}.drawing")  # now, so that it does not count for the first document


def _end_with_parent() -> None:
    # The pool's own pipe stays open when the server is killed, and this process would wait for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do_in_time(task: Callable[[GivenT], bytes], given: GivenT, seconds: float) -> bytes:
    signal.setitimer(signal.ITIMER_REAL, seconds)  # nobody handles it, so it ends the process, whatever is running
    try:
        return task(given)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
