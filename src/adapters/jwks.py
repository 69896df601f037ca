"""The public keys of a JWT issuer, from its JWKS address or a file."""

import asyncio
import json
import logging
import time
from pathlib import Path
from typing import Any

import httpx2
import jwt

FRESH_FOR_S = 300.0
COOL_DOWN_S = 10.0
MAX_BYTES = 256 * 1024

log = logging.getLogger("plafond.jwks")


class IssuerKeys:
    """Keeps the issuer's keys for five minutes; an unknown key id asks again, at most every ten seconds.

    When the issuer does not answer, the last good set is used on.
    """

    def __init__(self, *, url: str | None = None, file: Path | None = None) -> None:
        self._url = url
        self._file = file
        self._keys: list[jwt.PyJWK] = []
        self._fetched_at = -FRESH_FOR_S
        self._fetching = asyncio.Lock()

    async def find(self, kid: str | None, algorithm: str) -> Any | None:
        """The key with that id that fits the algorithm; none where the issuer has none."""
        await self._refresh(older_than_s=FRESH_FOR_S)
        found = self._choose(kid, algorithm)
        if found is None:
            await self._refresh(older_than_s=COOL_DOWN_S)
            found = self._choose(kid, algorithm)
        return found

    def _choose(self, kid: str | None, algorithm: str) -> Any | None:
        fitting = [
            key
            for key in self._keys
            if key.key_type == ("RSA" if algorithm == "RS256" else "EC") and (kid is None or key.key_id == kid)
        ]
        return fitting[0].key if len(fitting) == 1 else None

    async def _refresh(self, *, older_than_s: float) -> None:
        if time.monotonic() - self._fetched_at < older_than_s:
            return
        async with self._fetching:
            if time.monotonic() - self._fetched_at < older_than_s:
                return  # somebody else just did, and the keys are there
            try:
                found = json.loads(await self._read())
                self._keys = _usable_keys(found["keys"])
            except (httpx2.HTTPError, OSError, ValueError, KeyError, TypeError) as error:
                log.warning("the issuer's keys could not be read, the last ones are used on: %r", error)
            self._fetched_at = time.monotonic()

    async def _read(self) -> bytes:
        if self._file is not None:
            return await asyncio.to_thread(self._file.read_bytes)
        assert self._url is not None, "either an address or a file"
        async with httpx2.AsyncClient(timeout=5.0, follow_redirects=False) as client:
            answer = await client.get(self._url)
            answer.raise_for_status()
            if len(answer.content) > MAX_BYTES:
                raise ValueError("the key set is too large")
            return answer.content


def _usable_keys(entries: list[Any]) -> list[jwt.PyJWK]:
    """The keys of a set that we can check with; a broken one does not take the others along."""
    usable = []
    for entry in entries:
        if isinstance(entry, dict) and entry.get("kty") in ("RSA", "EC"):
            try:
                usable.append(jwt.PyJWK(entry))
            except jwt.PyJWTError as error:
                log.warning("a key of the issuer cannot be used: %r", error)
    return usable
