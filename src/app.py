"""The composition root: settings become a running application."""

import secrets
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from .adapters.bus import InProcessBus
from .adapters.jwks import IssuerKeys
from .api import schema
from .clock import Clock, SystemClock
from .database import Database
from .http.errors import refuse
from .http.graphql import GraphQLEndpoint, SocketEndpoint
from .http.health import live, ready
from .resolvers.context import Context
from .services.ports import SigningKeys
from .settings import Environment, Settings
from .worker import run_worker

METHODS = ["GET", "HEAD", "POST"]
PAGE_FILES = Path(__file__).parent / "http" / "graphiql"


def create_app(settings: Settings, *, with_worker: bool = True, clock: Clock | None = None) -> Starlette:
    """The ASGI application. With a worker, this process also does the due work."""
    bus = InProcessBus()

    def wake(topics: Iterable[str]) -> None:
        for topic in topics:
            bus.publish(topic)

    database = Database(settings.database_url, clock or SystemClock(), wake)
    signing_keys = make_signing_keys(settings)

    def make_context(origin: str) -> Context:
        return Context(
            database=database,
            bus=bus,
            settings=settings,
            signing_keys=signing_keys,
            origin=origin,
            request_id=secrets.token_hex(8),
        )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:  # noqa: ARG001
        async with anyio.create_task_group() as group:
            if with_worker:
                group.start_soon(run_worker, database)
            yield
            group.cancel_scope.cancel()
        await database.close()

    routes: list[Route | WebSocketRoute | Mount] = [
        Route("/graphql", GraphQLEndpoint(schema, make_context, settings.environment).answer, methods=METHODS),
        WebSocketRoute("/graphql", SocketEndpoint(schema, make_context, settings.allowed_origins)),
        Route("/healthz", live),
        Route("/readyz", ready),
    ]
    if settings.environment is Environment.SANDBOX and PAGE_FILES.is_dir():
        routes.append(Mount("/graphiql", StaticFiles(directory=PAGE_FILES)))
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: refuse})
    app.state.database = database
    app.state.bus = bus
    return app


def make_signing_keys(settings: Settings) -> SigningKeys | None:
    """Where the keys of JWTs come from; none where only API keys are taken."""
    if settings.jwt_jwks_url or settings.jwt_jwks_file:
        return IssuerKeys(url=settings.jwt_jwks_url, file=settings.jwt_jwks_file)
    return None
