"""The sockets that are open: when this process ends, they are closed so that their clients come back elsewhere."""

from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

GOING_AWAY = 1001


@dataclass(eq=False)
class _Open:
    """One socket, as long as its endpoint runs."""

    send: Send
    is_accepted: bool = False
    is_closed: bool = False


class OpenSockets:
    """Stands before the endpoint of sockets, and knows those that are open."""

    def __init__(self, endpoint: ASGIApp) -> None:
        self._endpoint = endpoint
        self._open: set[_Open] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the endpoint talk, until its socket was closed over its head."""
        socket = _Open(send)

        async def say(message: Message) -> None:
            if socket.is_closed:
                return
            socket.is_accepted = socket.is_accepted or message["type"] == "websocket.accept"
            socket.is_closed = message["type"] == "websocket.close"
            await send(message)

        self._open.add(socket)
        try:
            await self._endpoint(scope, receive, say)
        finally:
            self._open.discard(socket)

    async def close_all(self) -> None:
        """Close every socket 1001: clients of streams connect again, and go on after their cursor."""
        for socket in list(self._open):
            if socket.is_accepted and not socket.is_closed:
                socket.is_closed = True
                await socket.send({"type": "websocket.close", "code": GOING_AWAY, "reason": "The server stops"})
