"""How a WebSocket ends on the wire: what is said last goes out behind what waits, and nobody can hold a socket open."""

from asyncio import TimerHandle

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

LAST_WAIT_S = 10.0
"""How long a client that takes nothing may still take what waits, with the closing message behind it."""
GOING_AWAY = 1001


class SocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, which closes a socket politely: it waits for readers, and some never read."""

    cut: TimerHandle | None = None

    async def send(self, message: ASGISendEvent) -> None:
        """Closing does not wait for room. Anything else does."""
        if message["type"] != "websocket.close" or not self.handshake_complete:
            await super().send(message)
            return
        is_stalled = not self.writable.is_set()
        self.writable.set()
        await super().send(message)
        if is_stalled:
            self._cut_later()

    def shutdown(self) -> None:
        """The server goes away, which clients resume elsewhere after: uvicorn says 1012."""
        if self.handshake_complete and not self.close_sent:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": GOING_AWAY})
            self.conn.send_close(GOING_AWAY)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
        super().shutdown()
        self._cut_later()

    def keepalive_timeout(self) -> None:
        """Whoever answers no ping may not take the closing message either."""
        super().keepalive_timeout()
        self._cut_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        if self.cut is not None:
            self.cut.cancel()
        super().connection_lost(exc)

    def _cut_later(self) -> None:
        if self.cut is None and not self.disconnected:
            self.cut = self.loop.call_later(LAST_WAIT_S, self.transport.abort)
