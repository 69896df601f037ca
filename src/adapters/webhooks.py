"""Carries webhooks to public addresses: the address that a name was found to have, and checked, is the one asked."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import TypeAlias
from urllib.parse import urlsplit

import anyio
import httpcore2
from anyio.to_thread import run_sync

from ..services.ports import Answer, SendingFailed
from ..services.rules.addresses import is_inside

TOTAL_S = 15.0
"""A receiver that takes longer is not waited for, whatever it is at."""
LOOK_UP_S = 5.0
MAX_READ = 64 * 1024
MAX_ADDRESSES = 4
AT_ONCE = 128
KEPT_OPEN_S = 5.0
LOOK_UPS = 32
"""As many names are looked up at once: each takes a thread until the system gives up."""

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the addresses of a host; `OSError` where it has none."""
SocketOption: TypeAlias = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
_LEADS_INSIDE = (
    "The host leads inside a machine or network, by one of its addresses at least: webhooks go to public addresses "
    "only."
)


class LeadsInside(Exception):
    """A host that must not be asked."""


class SystemResolver:
    """Asks the system for the addresses of hosts, in threads of its own: a name server that hangs holds up no other."""

    def __init__(self) -> None:
        self._threads = anyio.CapacityLimiter(LOOK_UPS)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        found = await run_sync(
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM),
            abandon_on_cancel=True,
            limiter=self._threads,
        )
        return [str(item[4][0]) for item in found]


class _CheckedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that were checked. The name stays what the certificate and the request are for."""

    def __init__(self, resolve: Resolve, *, allow_inside: bool) -> None:
        self._resolve = resolve
        self._allow_inside = allow_inside
        self._sockets = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # the library's own signature
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        addresses = await self.find(host, port)
        for address in addresses[:-1]:
            try:
                return await self._sockets.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await self._sockets.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def find(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a host, all of which lie outside. They are asked for once: no later answer counts."""
        try:
            addresses = list(dict.fromkeys(await self._resolve(host, port)))
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"the host {host} is not known") from error
        if not addresses:
            raise httpcore2.ConnectError(f"the host {host} is not known")
        if not self._allow_inside and any(is_inside(address) for address in addresses):
            raise LeadsInside
        return addresses[:MAX_ADDRESSES]

    async def connect_unix_socket(
        self,
        path: str,  # noqa: ARG002
        timeout: float | None = None,  # noqa: ARG002, ASYNC109
        socket_options: Iterable[SocketOption] | None = None,  # noqa: ARG002
    ) -> httpcore2.AsyncNetworkStream:
        raise LeadsInside


class HttpCourier:
    """Carries messages over HTTPS. No proxy, no redirect, no cookie, and no more of an answer than is shown."""

    def __init__(
        self,
        *,
        allow_inside: bool = False,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        total_s: float = TOTAL_S,
    ) -> None:
        self._backend = _CheckedBackend(resolve or SystemResolver(), allow_inside=allow_inside)
        self._total_s = total_s
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=AT_ONCE,
            keepalive_expiry=KEPT_OPEN_S,
            network_backend=self._backend,
        )

    async def refuse(self, url: str) -> str | None:
        """Why nothing is carried to a URL, as its name stands now; none where it leads outside, or nowhere yet."""
        parts = urlsplit(url)
        try:
            async with asyncio.timeout(LOOK_UP_S):
                await self._backend.find(parts.hostname or "", parts.port or 443)
        except LeadsInside:
            return _LEADS_INSIDE
        except (TimeoutError, httpcore2.ConnectError):
            return None
        return None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Carry a message to a URL, and bring the beginning of the answer, all in some seconds."""
        try:
            async with asyncio.timeout(self._total_s):
                return await self._post(url, headers, body)
        except LeadsInside as error:
            raise SendingFailed(_LEADS_INSIDE) from error
        except (TimeoutError, httpcore2.TimeoutException) as error:
            raise SendingFailed(f"It did not answer within {self._total_s:g} seconds.") from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.UnsupportedProtocol, OSError) as error:
            raise SendingFailed(f"The connection failed: {str(error)[:200] or type(error).__name__}.") from error

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        asked = [(name.encode(), value.encode()) for name, value in headers.items()]
        asked.append((b"accept-encoding", b"identity"))
        async with self._pool.stream("POST", url, headers=asked, content=body) as response:
            told = {name.lower(): value for name, value in response.headers}
            beginning = bytearray()
            async with aclosing(response.aiter_stream()) as chunks:
                async for chunk in chunks:
                    beginning += chunk
                    if len(beginning) >= MAX_READ:
                        break
        waits = told.get(b"retry-after")
        return Answer(
            response.status, bytes(beginning[:MAX_READ]), None if waits is None else waits.decode("latin-1")[:100]
        )

    async def close(self) -> None:
        """Close what is kept open."""
        await self._pool.aclose()
