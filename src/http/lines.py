"""Streams that many share: who asks the same and may see the same is served by one execution and one encoding."""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

from graphql import VariableNode
from strawberry import Schema
from strawberry.types import ExecutionResult

from ..api import CACHED_DOCUMENTS, read_document
from ..resolvers.context import Context
from ..schema.operations import count_uses, find_operation, list_roots, list_values
from ..services.changes import Following

KEPT_FRAMES = 64
KEPT_CHARACTERS = 256 * 1024
"""What a line keeps for those who join a moment later: beyond that they catch up once more."""
PAUSE_S = 0.5
"""How long the readers of a stream that failed wait before they try alone: a database needs a moment, too."""
END_S = 5.0
"""How long a line may take to end."""
AT_ONCE = 256
"""How many readers get a frame before others have their turn."""

log = logging.getLogger("plafond.lines")


@dataclass(frozen=True)
class Asked:
    """What a subscriber asked for."""

    query: str
    variables: dict[str, Any] | None
    operation_name: str | None


class Reader(Protocol):
    """Who stands in a line."""

    token: str
    seen: int
    """The place in the account's changes up to which everything was handed over."""

    def take(self, sequence: int, payload: str) -> bool:
        """Take an answer; false where there is no room for it."""
        ...

    def fall_out(self) -> None:
        """Catch up alone: the line has ended, or was too fast."""
        ...


class Line:
    """One shared stream: its readers, and the last answers."""

    def __init__(self, begin: int, following: Following, left_by_all: Callable[[], None]) -> None:
        self.following = following
        self._left_by_all = left_by_all
        self.readers: dict[Reader, None] = {}
        self._kept: deque[tuple[int, str]] = deque()
        self._characters = 0
        self._complete_after = begin

    def join(self, reader: Reader) -> bool:
        """Go on where the reader is; false where that is too long ago."""
        if reader.seen < self._complete_after:
            return False
        for sequence, payload in tuple(self._kept):
            if sequence > reader.seen and not reader.take(sequence, payload):
                return False
        self.readers[reader] = None
        return True

    def leave(self, reader: Reader) -> None:
        """Somebody is not there any more. A line without readers ends."""
        self.readers.pop(reader, None)
        if not self.readers:
            self._left_by_all()

    async def hand_out(self, sequence: int, payload: str) -> None:
        """Give an answer to all who have not seen it."""
        self._keep(sequence, payload)
        for number, reader in enumerate(tuple(self.readers)):
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
            if reader in self.readers and sequence > reader.seen and not reader.take(sequence, payload):
                self.leave(reader)
                reader.fall_out()

    def _keep(self, sequence: int, payload: str) -> None:
        self._kept.append((sequence, payload))
        self._characters += len(payload)
        while len(self._kept) > KEPT_FRAMES or self._characters > KEPT_CHARACTERS:
            self._complete_after, dropped = self._kept.popleft()
            self._characters -= len(dropped)


class Lines:
    """The shared streams of a process."""

    def __init__(
        self,
        schema: Schema,
        make_context: Callable[[str], Context],
        check: Callable[[set[str]], Awaitable[None]],
    ) -> None:
        self._schema = schema
        self._make_context = make_context
        self._check = check
        self._by_key: dict[Hashable, Line] = {}
        self._tasks: dict[Line, asyncio.Task[None]] = {}

    def join(self, reader: Reader, asked: Asked, following: Following) -> Line | None:
        """The line of all who asked the same and may see the same; none where the reader must catch up once more."""
        key = share_key(asked, following)
        line = self._by_key.get(key)
        if line is None:
            line = self._by_key[key] = self._open(key, reader.seen, asked, following)
        return line if line.join(reader) else None

    def count_readers(self) -> int:
        """How many stand in a line."""
        return sum(len(line.readers) for line in self._tasks)

    async def close(self) -> None:
        """End all lines; whoever stands in them is not told."""
        tasks = tuple(self._tasks.values())
        for line in self._tasks:
            line.readers.clear()
            line.following.end()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=END_S)
            for task in late:
                task.cancel()

    def _open(self, key: Hashable, begin: int, asked: Asked, reader: Following) -> Line:
        shared = replace(reader, resume=begin, told=None, is_shared=True, is_endless=True, is_done=False, wakeups=None)
        line = Line(begin, shared, lambda: self._end(key, line))
        task = self._tasks[line] = asyncio.get_running_loop().create_task(self._serve(key, line, asked))
        task.add_done_callback(lambda _: self._tasks.pop(line))
        return line

    def _end(self, key: Hashable, line: Line) -> None:
        if self._by_key.get(key) is line:
            del self._by_key[key]
        line.following.end()

    async def _serve(self, key: Hashable, line: Line, asked: Asked) -> None:
        try:
            await self._pass_on(line, asked)
        except Exception:
            log.exception("a shared stream failed, and its readers go on alone")
        self._end(key, line)
        if line.readers:
            await asyncio.sleep(PAUSE_S)
        for left in tuple(line.readers):
            left.fall_out()

    async def _pass_on(self, line: Line, asked: Asked) -> None:
        async def check_readers() -> None:
            await self._check({one.token for one in line.readers})

        following = line.following
        following.may_go_on = check_readers
        context = replace(self._make_context("stream"), following=following, caller=following.reader)
        source = await self._schema.stream(
            asked.query,
            variable_values=asked.variables,
            context_value=context,
            operation_name=asked.operation_name,
        )
        async with aclosing(source):
            async for result in source:
                if following.told is None or not isinstance(result, ExecutionResult) or has_failed(result):
                    return  # it failed: alone, each of its readers meets the same, or goes on
                sequence, following.told = following.told, None
                await line.hand_out(sequence, encode_result(result))


def has_failed(result: ExecutionResult) -> bool:
    """Whether this is no answer but the end: what a field of an answer refuses has a path."""
    return result.data is None and any(error.path is None for error in result.errors or ())


def encode_result(result: ExecutionResult) -> str:
    """The payload of an answer."""
    payload: dict[str, Any] = {"data": result.data}
    if result.errors:
        payload["errors"] = [error.formatted for error in result.errors]
    if result.extensions:
        payload["extensions"] = result.extensions
    return encode(payload)


def encode(message: object) -> str:
    """Compact JSON."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)


def share_key(asked: Asked, following: Following) -> Hashable:
    """All that an answer depends on: the account, what was asked, and what its reader is in the account.

    Not the cursor that the stream resumes behind, where nothing else depends on it: each begins somewhere else, and all
    come to the same end.
    """
    assert following.reader is not None, "only who follows an account is shared with"
    variables = dict(asked.variables or {})
    cursor = name_cursor(asked.query, asked.operation_name)
    if cursor is not None:
        variables.pop(cursor, None)
    return (
        following.account_id,
        following.right,
        following.reader.standing,
        asked.query,
        asked.operation_name,
        json.dumps(variables, sort_keys=True),
    )


@lru_cache(maxsize=CACHED_DOCUMENTS)
def name_cursor(query: str, operation_name: str | None) -> str | None:
    """The variable that is the root field's `after` and nothing else; none where there is no such."""
    document = read_document(query)
    assert document is not None, "it was executed"
    values = list_values(list_roots(find_operation(document, operation_name)), "after")
    if len(values) != 1 or not isinstance(values[0], VariableNode):
        return None
    name = values[0].name.value
    return name if count_uses(document, name) == 1 else None
