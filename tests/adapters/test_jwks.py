"""The issuer's keys: whoever asks while they are fetched waits for them, and a broken one spoils no other."""

import asyncio
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from plafond.adapters.jwks import IssuerKeys


def key_set(*more: object) -> str:
    key = json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key()))
    return json.dumps({"keys": [*more, key | {"kid": "one", "alg": "ES256"}]})


async def test_all_who_ask_at_the_start_get_the_key(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(key_set())
    keys = IssuerKeys(file=file)
    found = await asyncio.gather(*(keys.find("one", "ES256") for _ in range(10)))
    assert all(key is not None for key in found)


@pytest.mark.parametrize("broken", [None, 1, "x", {}, {"kty": "EC", "kid": "two", "crv": "P-256", "x": "!", "y": "!"}])
async def test_a_broken_key_spoils_no_other(tmp_path: Path, broken: object) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(key_set(broken))
    keys = IssuerKeys(file=file)
    assert await keys.find("one", "ES256") is not None
    assert await keys.find("two", "ES256") is None


async def test_a_missing_file_is_no_key(tmp_path: Path) -> None:
    assert await IssuerKeys(file=tmp_path / "none.json").find("one", "ES256") is None
