"""What an operation knows: who asks, where data is, and loaders of its own."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, Self, TypeAlias, TypeVar

import strawberry

from ..database import Actor, Database, ReadSession, Work
from ..models import BillingAccount, Document, Export
from ..services.access import Principal
from ..services.changes import Following
from ..services.due_work import NOBODY
from ..services.errors import ErrorCode, RequestRefused
from ..services.links import LINK_LIFE, Link, LinkForm, sign_link
from ..services.ports import Bus, Hooks, Processor, SigningKeys
from ..services.tills import Till
from ..services.tokens import Proof, prove
from ..services.usage import UsageInput
from ..services.uses import Uses
from ..settings import Settings
from .loaders import Loaders

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Context:
    """The context of one operation. There is no session in it: siblings run at once, and each opens a short one."""

    database: Database
    bus: Bus
    settings: Settings
    signing_keys: SigningKeys | None
    processor: Processor
    link_key: bytes = field(repr=False)
    hooks: Hooks
    origin: str
    """The address that it was asked from."""
    request_id: str
    token: str = ""
    caller: Principal | None = None
    connection_params: dict[str, Any] | None = None
    following: Following = field(default_factory=Following)
    """How the stream is read that this operation is, if it is one."""
    extensions: dict[str, Any] = field(default_factory=dict[str, Any])
    may_lag: bool = False
    """Whether what is read may come from a replica: in queries, until something is written."""
    batch: list[UsageInput] | None = None
    """The events of this operation, where they were read out of its variables: see `batches`."""
    uses: Uses = field(default_factory=Uses)
    """What this process notes of its callers."""
    load: Loaders = field(init=False)

    def __post_init__(self) -> None:
        self.forget()

    def fresh(self) -> Self:
        """The same caller with loaders of its own: a socket has one context for all its operations."""
        return replace(self, extensions={}, batch=None)

    def forget(self) -> None:
        """Drop what was loaded: after a commit, and after each event of a stream."""
        self.load = Loaders(self.database, may_lag=self.may_lag)

    def read_replica(self) -> None:
        """Read from a replica from now on: nothing was written that this operation has to see."""
        self.may_lag = True
        self.forget()

    def _read_primary(self) -> None:
        """Read what was written, from now on."""
        self.may_lag = False
        self.forget()

    def note_replay(self, *, replayed: bool) -> None:
        """Tell the client where its answer is that of an earlier request under the same key."""
        if replayed:
            self.extensions["idempotency"] = {"replayed": True}

    @property
    def principal(self) -> Principal:
        """Who asks."""
        if self.caller is None:
            raise RequestRefused(ErrorCode.UNAUTHENTICATED, "Send a bearer token: an API key or a JWT.")
        return self.caller

    async def authenticate(self) -> None:
        """Find out who asks, from the token; again on a stream, where the right may have gone."""
        await self.prove()

    async def prove(self) -> Proof:
        """The same, with how long the token is good."""
        proof = await prove(self.database, self.settings, self.signing_keys, self.token, self.origin)
        self.caller = proof.principal
        if proof.principal.key_id is not None:
            self.uses.note_key(proof.principal.key_id, self.now())
        return proof

    def now(self) -> datetime:
        """The time by the wall clock: that of keys and links."""
        return self.database.clock.now()

    def now_for(self, account: BillingAccount) -> datetime:
        """The time that holds for an account."""
        return self.database.clock.now_for(account)

    def link_to(self, document: Document | Export, form: LinkForm) -> Link:
        """A link that opens a document or export for a while, by the wall clock."""
        expires_at = (self.database.clock.now() + LINK_LIFE).replace(microsecond=0)
        path = sign_link(self.link_key, document.id, document.account_id or NOBODY, expires_at, form)
        return Link(self.settings.base_url + path, expires_at)

    def read(self) -> AbstractAsyncContextManager[ReadSession]:
        """A short session that only reads."""
        return self.database.read(may_lag=self.may_lag)

    def work(self) -> AbstractAsyncContextManager[Work]:
        """One transaction in the caller's name; what was loaded before it is forgotten."""
        self._read_primary()
        return self.database.work(self.actor)

    async def run(self, act: Callable[Concatenate[Work, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for an act that may be done anew where the database gave its transaction up."""
        self._read_primary()
        return await self.database.run(self.actor, act, *args, **kwargs)

    @property
    def actor(self) -> Actor:
        """The caller, as the audit log knows it."""
        return self.principal.actor(f"{self.origin} {self.request_id}")

    def till(self) -> Till:
        """Where the caller's orders are taken."""
        self._read_primary()
        return Till(self.database, self.processor, self.actor)


Info: TypeAlias = strawberry.Info[Context, None]
