"""The public keys of a JWT issuer, from its JWKS address or a file."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx2
import jwt

FRESH_FOR_S = 300.0
COOL_DOWN_S = 10.0
MAX_BYTES = 256 * 1024


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
        if time.monotonic() - self._fetched_at >= FRESH_FOR_S:
            await self._refresh()
        found = self._choose(kid, algorithm)
        if found is None and time.monotonic() - self._fetched_at >= COOL_DOWN_S:
            await self._refresh()
            found = self._choose(kid, algorithm)
        return found

    def _choose(self, kid: str | None, algorithm: str) -> Any | None:
        fitting = [
            key
            for key in self._keys
            if key.key_type == ("RSA" if algorithm == "RS256" else "EC") and (kid is None or key.key_id == kid)
        ]
        return fitting[0].key if len(fitting) == 1 else None

    async def _refresh(self) -> None:
        async with self._fetching:
            if time.monotonic() - self._fetched_at < COOL_DOWN_S:
                return  # somebody else just did
            self._fetched_at = time.monotonic()
            try:
                text = await self._read()
                found = json.loads(text)
                self._keys = [jwt.PyJWK(key) for key in found["keys"] if key.get("kty") in ("RSA", "EC")]
            except (httpx2.HTTPError, OSError, ValueError, KeyError, TypeError, jwt.PyJWTError):
                return

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
