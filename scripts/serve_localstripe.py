"""Serves localstripe to one test run: on the loopback only, without its file, and deaf to what it is too old for."""

import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from localstripe import resources, server

UNKNOWN_OF_INTENTS = ("allowed_payment_method_types", "description")
UNKNOWN_OF_SETUPS = ("allowed_payment_method_types",)

read_post = server.get_post_data


async def read_known_post(request: web.Request, remove_auth: bool = True) -> dict[str, Any]:
    """A posted body without what localstripe would refuse, and Stripe takes."""
    data: dict[str, Any] = await read_post(request, remove_auth)
    unknown = {"/v1/payment_intents": UNKNOWN_OF_INTENTS, "/v1/setup_intents": UNKNOWN_OF_SETUPS}
    for name in unknown.get(request.path, ()):
        if data:
            data.pop(name, None)
    return data


@web.middleware
async def list_everybodys(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """It cannot list the intents of one customer, but those of all."""
    if request.method == "GET" and request.path == "/v1/payment_intents":
        request = request.clone(rel_url=request.rel_url.without_query_params("customer"))
    return await handler(request)


server.get_post_data = read_known_post
server.app.middlewares.append(list_everybodys)
# It would write all that it has to one fixed file, after every request.
resources.Store.dump_to_disk = lambda _: None

with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    web.run_app(server.app, sock=listener, print=None, handle_signals=True)
