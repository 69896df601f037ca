"""Who follows something live, by token: looked at again whenever access changed, and ended when a token expires."""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from ..database import ACCESS_TOPIC, AWAY, Database
from ..settings import Settings
from .access import Principal
from .errors import ErrorCode, RequestRefused
from .ports import Bus
from .tokens import Proof, check_again

LOOK_AGAIN_S = 5.0
"""How long a right that was taken in a process which the bus does not reach can last here."""
LONGEST_WAIT_S = 24 * 3600.0
"""Timers are set this far ahead at most."""

log = logging.getLogger("plafond.admission")


class Follower(Protocol):
    """Something live that hangs on a token."""

    def judge(self, verdict: Principal | RequestRefused) -> None:
        """Hear who the token belongs to now, or why it is no good any more."""
        ...


@dataclass
class Admission:
    """A token that is in use, and by whom."""

    proof: Proof
    followers: set[Follower] = field(default_factory=set[Follower])
    expiry: asyncio.TimerHandle | None = None


class Admissions:
    """The tokens of a process's live followers. However many follow under one token, it is checked once."""

    def __init__(self, database: Database, settings: Settings, bus: Bus) -> None:
        self._database = database
        self._settings = settings
        self._bus = bus
        self._by_token: dict[str, Admission] = {}

    def admit(self, token: str, proof: Proof, follower: Follower) -> None:
        """Look after a follower from now on. The last proof of a token is what holds for all."""
        admission = self._by_token.setdefault(token, Admission(proof))
        self._renew(token, admission, proof)
        admission.followers.add(follower)

    def dismiss(self, token: str, follower: Follower) -> None:
        """It follows no more."""
        admission = self._by_token.get(token)
        if admission is None:
            return
        admission.followers.discard(follower)
        if not admission.followers:
            del self._by_token[token]
            if admission.expiry is not None:
                admission.expiry.cancel()

    async def watch(self) -> None:
        """Check all tokens whenever access changed, and every few seconds, for ever."""
        with self._bus.listen(ACCESS_TOPIC) as wakeups:
            while True:
                try:
                    await self.check(list(self._by_token))
                except AWAY as error:
                    # Nothing is handed out either before somebody could look.
                    log.warning("who follows could not be checked, and is checked again: %s", error)
                await wakeups.wait(LOOK_AGAIN_S)

    async def check(self, tokens: Collection[str]) -> None:
        """Tell the followers under these tokens who they are now, or that it is over."""
        proofs = {token: self._by_token[token].proof for token in tokens if token in self._by_token}
        if not proofs:
            return
        for token, found in (await check_again(self._database, self._settings, proofs)).items():
            if isinstance(found, RequestRefused):
                self._tell(token, found)
                continue
            admission = self._by_token.get(token)
            if admission is not None and found.ends_at != admission.proof.ends_at:
                # The key's secret was exchanged since: now it has an end that it had not.
                self._renew(token, admission, found)
            self._tell(token, found.principal)

    def _tell(self, token: str, verdict: Principal | RequestRefused) -> None:
        admission = self._by_token.get(token)
        if admission is not None:
            for follower in tuple(admission.followers):
                follower.judge(verdict)

    def _renew(self, token: str, admission: Admission, proof: Proof) -> None:
        admission.proof = proof
        if admission.expiry is not None:
            admission.expiry.cancel()
            admission.expiry = None
        self._wait_for_expiry(token, admission, proof.lasts_s)

    def _wait_for_expiry(self, token: str, admission: Admission, left_s: float | None) -> None:
        if left_s is None:
            return
        wait_s = min(max(left_s, 0.0), LONGEST_WAIT_S)

        def expire() -> None:
            if left_s > wait_s:
                self._wait_for_expiry(token, admission, left_s - wait_s)
                return
            self._tell(token, RequestRefused(ErrorCode.UNAUTHENTICATED, admission.proof.last_words))

        admission.expiry = asyncio.get_running_loop().call_later(wait_s, expire)
