"""The composition root: settings become a running application."""

import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Protocol, runtime_checkable

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from .adapters.bus import InProcessBus
from .adapters.jwks import IssuerKeys
from .adapters.mail_folder import MailFolder
from .adapters.mime import Sender
from .adapters.no_processor import NoProcessor
from .adapters.sandbox_processor import SandboxProcessor
from .adapters.webhooks import HttpCourier
from .api import schema_for
from .clock import Clock, SystemClock
from .database import Database
from .http.documents import DocumentEndpoint
from .http.errors import refuse
from .http.graphql import GraphQLEndpoint
from .http.health import live, ready
from .http.mails import MailPages, is_here
from .http.payload_queries import SchemaQueries
from .http.sockets import SocketEndpoint
from .http.unsubscribing import UnsubscribeEndpoint
from .http.usage import UsageEndpoint
from .http.webhooks import MessageReader, WebhookEndpoint
from .resolvers.context import Context
from .services.admission import Admissions
from .services.links import FOLDER
from .services.mail_texts import Desk
from .services.ports import Bus, Courier, Draughtsman, Hooks, Mailer, Processor, SigningKeys
from .services.posting import PostOffice
from .services.uses import Uses, write_for_ever, write_the_last
from .settings import Environment, SettingMissing, Settings
from .stopping import Stopping
from .worker import Tools, start_work

log = logging.getLogger("plafond.app")

METHODS = ["GET", "HEAD", "POST"]
WORK_GRACE_S = 10.0
WEBHOOK_PATH = "/webhooks/stripe"
PAGE_FILES = Path(__file__).parent / "http" / "graphiql"


@runtime_checkable
class Closable(Protocol):
    """Who keeps connections to the outside."""

    async def close(self) -> None:
        """Give them back."""
        ...


def create_app(
    settings: Settings,
    *,
    with_worker: bool = True,
    clock: Clock | None = None,
    draughtsman: Draughtsman | None = None,
    courier: Courier | None = None,
) -> Starlette:
    """The ASGI application. With a worker, this process also does the due work.

    Without a draughtsman it draws no documents: those that are drawn it opens.
    """
    bus = make_bus(settings)
    stopping = Stopping()
    database = Database(settings.database_url, clock or SystemClock(), bus.publish_all, replica=settings.replica_url)
    processor = make_processor(settings, database)
    schema = schema_for(settings.environment)
    link_key = make_link_key(settings)
    office = make_post_office(settings, link_key) if with_worker else None
    uses = Uses()
    hooks, make_context = make_hooks(settings, database, bus, processor, link_key, uses, courier)
    admissions = Admissions(database, settings, bus)
    sockets = SocketEndpoint(schema, make_context, settings.allowed_origins, admissions)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:  # noqa: ARG001
        async with bus.running(), anyio.create_task_group() as beside:
            beside.start_soon(admissions.watch)
            beside.start_soon(write_for_ever, uses, database)
            async with anyio.create_task_group() as group:
                if with_worker:
                    keep_usage = timedelta(days=settings.usage_retention_days)
                    start_work(group, database, Tools(processor, hooks, office, draughtsman, keep_usage), stopping)
                yield
                await sockets.close_all()
                # Whoever works comes to the end of a piece of work, or is stopped in it: then it is done again.
                stopping.begin()
                group.cancel_scope.deadline = anyio.current_time() + (0 if stopping.is_hurried else WORK_GRACE_S)
            beside.cancel_scope.cancel()
        await write_the_last(uses, database)
        for outside in (processor, hooks.courier):
            if isinstance(outside, Closable):
                await outside.close()
        await database.close()

    routes: list[BaseRoute] = [
        Route("/graphql", GraphQLEndpoint(schema, make_context, settings.environment).answer, methods=METHODS),
        WebSocketRoute("/graphql", sockets),
        Route("/usage", UsageEndpoint(make_context, stopping).answer, methods=["POST"]),
        Route(FOLDER + "{token:path}", DocumentEndpoint(database, link_key, draughtsman).answer),
        Route("/unsubscribe/{token}", UnsubscribeEndpoint(database, link_key).answer, methods=METHODS),
        Route("/healthz", live),
        Route("/readyz", ready),
    ]
    read_message = make_message_reader(settings)
    if read_message is not None:
        webhooks = WebhookEndpoint(database, processor, read_message)
        routes.append(Route(WEBHOOK_PATH, webhooks.answer, methods=["POST"]))
    if settings.environment is Environment.SANDBOX and PAGE_FILES.is_dir():
        routes.append(Mount("/graphiql", StaticFiles(directory=PAGE_FILES)))
    if settings.environment is Environment.SANDBOX and settings.smtp_url is None and is_here(settings.host):
        routes += MailPages(settings.mail_folder).routes()
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: refuse})
    app.state.trusted_proxies = settings.trusted_proxies
    app.state.uses = uses
    app.state.database = database
    app.state.hooks = hooks
    app.state.bus = bus
    app.state.stopping = stopping
    app.state.sockets = sockets
    return app


def make_hooks(
    settings: Settings,
    database: Database,
    bus: Bus,
    processor: Processor,
    link_key: bytes,
    uses: Uses,
    courier: Courier | None = None,
) -> tuple[Hooks, Callable[[str], Context]]:
    """What webhooks need of the outside, and the contexts that all operations run in: a webhook's query does, too."""
    signing_keys = make_signing_keys(settings)

    def make_context(origin: str) -> Context:
        return Context(
            database=database,
            bus=bus,
            settings=settings,
            signing_keys=signing_keys,
            processor=processor,
            link_key=link_key,
            hooks=hooks,
            origin=origin,
            request_id=secrets.token_hex(8),
            uses=uses,
        )

    allow_inside = settings.webhook_allow_inside
    hooks = Hooks(
        courier=courier or HttpCourier(allow_inside=allow_inside),
        queries=SchemaQueries(schema_for(settings.environment), make_context),
        allow_inside=allow_inside,
    )
    return hooks, make_context


def make_bus(settings: Settings) -> InProcessBus:
    """What wakes the readers of live changes: those of this process, and through Redis those of all."""
    if settings.redis_url is None:
        return InProcessBus()
    try:
        from .adapters.redis_bus import RedisBus  # noqa: PLC0415  # an extra, for those who configure it
    except ModuleNotFoundError as error:
        raise SettingMissing(
            "PLAFOND_REDIS_URL is set, and the extra for it is not installed: plafond[redis]."
        ) from error
    return RedisBus(settings.redis_url.get_secret_value())


def make_link_key(settings: Settings) -> bytes:
    """What signs links to documents."""
    if settings.link_secret is not None:
        return settings.link_secret.get_secret_value().encode()
    if settings.environment is Environment.PRODUCTION:
        raise SettingMissing(
            "PLAFOND_LINK_SECRET is not set: it signs the links to documents. Take at least 32 random characters, "
            "the same for every process that serves."
        )
    return secrets.token_bytes(32)


def make_post_office(settings: Settings, link_key: bytes | None = None) -> PostOffice | None:
    """What sending mail takes; none where no mail is sent. Without the key of links it makes that too."""
    mailer = make_mailer(settings)
    if mailer is None:
        log.warning(
            "PLAFOND_SMTP_URL is not set: no mail is sent, and what happens meanwhile is told to nobody by mail"
        )
        return None
    base = settings.base_url
    return PostOffice(mailer, Desk(settings.dashboard_url or base, base, link_key or make_link_key(settings)))


def make_mailer(settings: Settings) -> Mailer | None:
    """Who sends mail: the mail server where one is configured, else in the sandbox a folder."""
    sender = Sender(settings.mail_from, settings.mail_reply_to)
    if settings.smtp_url is None:
        return MailFolder(settings.mail_folder, sender) if settings.environment is Environment.SANDBOX else None
    from .adapters.smtp import Relay, SmtpMailer  # noqa: PLC0415  # only for those who configure it

    try:
        relay = Relay.parse(settings.smtp_url.get_secret_value())
    except ValueError as error:
        raise SettingMissing(f"PLAFOND_SMTP_URL does not name a mail server: {error}.") from error
    return SmtpMailer(relay, sender)


def make_signing_keys(settings: Settings) -> SigningKeys | None:
    """Where the keys of JWTs come from; none where only API keys are taken."""
    if settings.jwt_jwks_url or settings.jwt_jwks_file:
        return IssuerKeys(url=settings.jwt_jwks_url, file=settings.jwt_jwks_file)
    return None


def make_processor(settings: Settings, database: Database) -> Processor:
    """Who collects money: Stripe where it is configured, else in the sandbox the embedded processor."""
    if settings.stripe_key is not None:
        from .adapters.stripe_processor import StripeProcessor  # noqa: PLC0415  # half a second that only Stripe needs

        return StripeProcessor(
            settings.stripe_key.get_secret_value(),
            base_url=settings.stripe_url,
            publishable_key=settings.stripe_publishable_key,
        )
    if settings.environment is Environment.SANDBOX:
        return SandboxProcessor(database)
    return NoProcessor()


def make_message_reader(settings: Settings) -> MessageReader | None:
    """Who proves and reads the processor's messages; none where none are expected."""
    if settings.stripe_key is None:
        return None
    from .adapters.stripe_messages import StripeMessages  # noqa: PLC0415  # half a second that only Stripe needs

    secrets_of_stripe = [secret.get_secret_value() for secret in settings.stripe_webhook_secrets]
    return StripeMessages(secrets_of_stripe, is_live=settings.environment is Environment.PRODUCTION).read
