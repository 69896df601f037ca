"""JWTs: who a person is, what is refused, and that accounts and roles come from our own tables."""

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import anyio
import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import select, update

from plafond.adapters.jwks import IssuerKeys
from plafond.app import create_app
from plafond.database import Actor
from plafond.models import BillingAccount, Member, Operator, Role
from plafond.services.access import Principal, PrincipalKind
from plafond.services.errors import ErrorCode, RequestRefused
from plafond.services.tokens import authenticate

from ..conftest import NOW, Client, World

ACTOR = Actor(name="system:test", origin="test")
ISSUER = "https://issuer.test"
RSA_KEY = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
OTHER_RSA_KEY = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims, changed; None takes one away."""
    good = {"iss": ISSUER, "aud": "plafond", "sub": "anna", "exp": int(time.time()) + 600}
    return {name: value for name, value in (good | changes).items() if value is not None}


def part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(raw).decode().rstrip("=")


def sign(payload: object, secret: bytes, header: dict[str, Any] | None = None) -> str:
    """An HS256 token by hand, so that nothing is checked while making it."""
    text = f"{part(header or {'alg': 'HS256', 'typ': 'JWT'})}.{part(payload)}"
    return f"{text}.{part(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def secret_of(world: World) -> bytes:
    assert world.settings.jwt_hs256_secret is not None
    return world.settings.jwt_hs256_secret.get_secret_value().encode()


async def add_member(world: World, tenant: str, role: Role, sub: str = "anna", iss: str = ISSUER) -> None:
    async with world.database.work(ACTOR) as work:
        account = (await work.session.scalars(select(BillingAccount).where(BillingAccount.external_id == tenant))).one()
        work.session.add(
            Member(created_at=NOW, account_id=account.id, iss=iss, sub=sub, display_name="Anna", role=role)
        )


async def add_operator(world: World, sub: str = "olga", iss: str = ISSUER) -> None:
    async with world.database.work(ACTOR) as work:
        work.session.add(Operator(created_at=NOW, iss=iss, sub=sub, display_name="Olga"))


async def is_refused(client: Client, token: str) -> bool:
    response = await client.http.post(
        "/graphql", json={"query": "{ viewer { kind } }"}, headers={"Authorization": f"Bearer {token}"}
    )
    if response.status_code == 200:
        return False
    assert response.status_code == 401
    assert response.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    assert response.headers["www-authenticate"].startswith("Bearer ")
    assert token not in response.text
    return True


VIEWER = "{ viewer { kind displayName roles scopes accounts { account { externalId } role } } }"


async def test_a_member_has_the_roles_of_our_table(client: Client, world: World) -> None:
    await add_member(world, "acme", Role.BILLING_ADMIN)
    await add_member(world, "calder", Role.TENANT_OWNER)
    await add_member(world, "dunmore", Role.TENANT_OWNER, sub="another")
    await add_member(world, "elmtree", Role.TENANT_OWNER, iss="https://other.test")
    token = sign(claims(role="OPERATOR", accounts=["birchwood"], tenant="birchwood"), secret_of(world))
    data: Any = await client.data(token, VIEWER)
    assert data["viewer"] == {
        "kind": "MEMBER",
        "displayName": "Anna",
        "roles": ["BILLING_ADMIN", "TENANT_OWNER"],
        "scopes": [],
        "accounts": [
            {"account": {"externalId": "acme"}, "role": "BILLING_ADMIN"},
            {"account": {"externalId": "calder"}, "role": "TENANT_OWNER"},
        ],
    }


async def test_an_operator_is_listed_by_issuer_and_subject(client: Client, world: World) -> None:
    await add_operator(world)
    data: Any = await client.data(sign(claims(sub="olga"), secret_of(world)), VIEWER)
    assert data["viewer"] == {
        "kind": "OPERATOR",
        "displayName": "Olga",
        "roles": ["OPERATOR"],
        "scopes": [],
        "accounts": [],
    }
    assert await is_refused(client, sign(claims(sub="operator"), secret_of(world)))  # of another issuer: the sandbox's


async def test_who_is_nobody_here_is_refused(client: Client, world: World) -> None:
    assert await is_refused(client, sign(claims(), secret_of(world)))


@pytest.mark.parametrize("model", [Member, Operator])
async def test_who_was_removed_is_refused(client: Client, world: World, model: type[Member] | type[Operator]) -> None:
    await (add_member(world, "acme", Role.TENANT_OWNER) if model is Member else add_operator(world, "anna"))
    token = sign(claims(), secret_of(world))
    assert not await is_refused(client, token)
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(model).where(model.sub == "anna").values(removed_at=NOW))
    assert await is_refused(client, token)


async def test_a_changed_role_holds_at_once(client: Client, world: World) -> None:
    await add_member(world, "acme", Role.TENANT_OWNER)
    token = sign(claims(), secret_of(world))
    assert "errors" not in await client.ask(token, "{ billingAccount { externalId } }")
    async with world.database.work(ACTOR) as work:
        await work.session.execute(update(Member).where(Member.sub == "anna").values(role=Role.MEMBER))
    answer: Any = await client.ask(token, "{ billingAccount { externalId } }")
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.test"},
        {"iss": "https://issuer.test/"},
        {"iss": ["https://issuer.test"]},
        {"iss": None},
        {"aud": "another"},
        {"aud": "Plafond"},
        {"aud": ["a", "b"]},
        {"aud": []},
        {"aud": None},
        {"sub": None},
        {"sub": 5},
        {"sub": ["anna"]},
        {"exp": None},
        {"exp": "2000000000"},
        {"exp": "never"},
        {"exp": 2_000_000_000.5},
        {"exp": True},
        {"exp": [2_000_000_000]},
        {"exp": 0},
        {"exp": -1},
        {"exp": 1_700_000_000},
        {"nbf": 4_000_000_000},
        {"nbf": "soon"},
        {"iat": 4_000_000_000},
    ],
)
async def test_wrong_claims_are_refused(client: Client, world: World, changes: dict[str, Any]) -> None:
    await add_member(world, "acme", Role.TENANT_OWNER)
    assert not await is_refused(client, sign(claims(), secret_of(world)))
    assert await is_refused(client, sign(claims(**changes), secret_of(world)))


async def test_one_of_several_audiences_is_enough(client: Client, world: World) -> None:
    await add_member(world, "acme", Role.TENANT_OWNER)
    assert not await is_refused(client, sign(claims(aud=["x", "plafond"], nbf=1, iat=1), secret_of(world)))


async def test_other_signatures_are_refused(client: Client, world: World) -> None:
    await add_member(world, "acme", Role.TENANT_OWNER)
    await add_member(world, "calder", Role.TENANT_OWNER, sub="carl")
    good = sign(claims(), secret_of(world))
    header, body, signature = good.split(".")
    assert not await is_refused(client, good)
    forged = [
        f"{header}.{part(claims(sub='carl'))}.{signature}",
        f"{header}.{body}.",
        f"{header}.{body}.{signature[:-4]}",
        f"{header}.{body}.{part(b'0' * 32)}",
        f".{body}.{signature}",
        f"{header}..{signature}",
        f"{part(b'x')}.{body}.{signature}",
        f"{part([1])}.{body}.{signature}",
        f"{part({})}.{body}.{signature}",
        *(sign(claims(), guess) for guess in (b"", b"secret", b"changeme", secret_of(world)[:-1])),
        sign([1], secret_of(world)),
        sign("anna", secret_of(world)),
        sign(b"\xff", secret_of(world)),
        *(
            f"{part({'alg': name, 'typ': 'JWT'})}.{body}.{cut}"
            for name in ("none", "None", "NONE", "", "HS384", "HS512", "ES256", "RS256", "PS256", 1, None, ["HS256"])
            for cut in ("", signature)
        ),
    ]
    for token in forged:
        assert await is_refused(client, token), token


@pytest.mark.parametrize("kid", ["../../etc/passwd", "' OR 1=1", "", 5, None, {"a": 1}, "x" * 4_000])
async def test_a_key_id_opens_nothing(client: Client, world: World, kid: object) -> None:
    await add_member(world, "acme", Role.TENANT_OWNER)
    header = {"alg": "RS256", "typ": "JWT", "kid": kid, "jku": "http://127.0.0.1:1/keys", "x5u": "http://127.0.0.1:1/"}
    assert await is_refused(client, sign(claims(), secret_of(world), header))


def public_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    """The issuer's published keys: one RSA, one EC, and a symmetric one that must never be used."""
    keys = [
        jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True) | {"kid": "r1", "use": "sig"},
        jwt.algorithms.ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True) | {"kid": "e1", "use": "sig"},
        {"kty": "oct", "kid": "s1", "alg": "HS256", "k": part(b"0" * 32)},
    ]
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": keys}))
    return path


async def who(world: World, keys: IssuerKeys, token: str, *, with_secret: bool = False) -> Principal:
    settings = world.settings if with_secret else world.settings.model_copy(update={"jwt_hs256_secret": None})
    return await authenticate(world.database, settings, keys, token)


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"),
    [(RSA_KEY, "RS256", "r1"), (RSA_KEY, "RS256", None), (EC_KEY, "ES256", "e1"), (EC_KEY, "ES256", None)],
)
async def test_a_published_key_proves_who(
    world: World, keys_file: Path, key: Any, algorithm: str, kid: str | None
) -> None:
    await add_member(world, "acme", Role.MEMBER)
    token = jwt.encode(claims(), key, algorithm, headers={"kid": kid} if kid else {})
    found = await who(world, IssuerKeys(file=keys_file), token)
    assert (found.kind, list(found.roles.values()), found.scopes) == (PrincipalKind.MEMBER, [Role.MEMBER], None)


def forge(name: str) -> str:
    """A token that no published key has signed so."""
    match name:
        case "another key":
            return jwt.encode(claims(), OTHER_RSA_KEY, "RS256", headers={"kid": "r1"})
        case "an unknown key id":
            return jwt.encode(claims(), RSA_KEY, "RS256", headers={"kid": "r2"})
        case "the key id of another kind":
            return jwt.encode(claims(), RSA_KEY, "RS256", headers={"kid": "e1"})
        case "another algorithm":
            return jwt.encode(claims(), RSA_KEY, "RS512", headers={"kid": "r1"})
        case "another padding":
            return jwt.encode(claims(), RSA_KEY, "PS256", headers={"kid": "r1"})
        case "the public key as a secret":
            return sign(claims(), public_pem(RSA_KEY), {"alg": "HS256", "typ": "JWT", "kid": "r1"})
        case "the public key as a secret, without a key id":
            return sign(claims(), public_pem(EC_KEY))
        case "the symmetric key of the set":
            return sign(claims(), b"0" * 32, {"alg": "HS256", "typ": "JWT", "kid": "s1"})
        case "none":
            return f"{part({'alg': 'none', 'kid': 'r1'})}.{part(claims())}."
        case "a changed body":
            header, _, signature = jwt.encode(claims(), RSA_KEY, "RS256", headers={"kid": "r1"}).split(".")
            return f"{header}.{part(claims(sub='olga'))}.{signature}"
        case "an embedded key":
            embedded = jwt.algorithms.RSAAlgorithm.to_jwk(OTHER_RSA_KEY.public_key(), as_dict=True)
            return jwt.encode(claims(), OTHER_RSA_KEY, "RS256", headers={"jwk": embedded})
        case _:
            wrong: dict[str, dict[str, Any]] = {
                "wrong aud": {"aud": "x"},
                "wrong iss": {"iss": "x"},
                "past": {"exp": 1_700_000_000},
                "no exp": {"exp": None},
                "text exp": {"exp": "2000000000"},
                "ahead": {"nbf": 4_000_000_000},
            }
            text = f"{part({'alg': 'RS256', 'kid': 'r1'})}.{part(claims(**wrong[name]))}"
            algorithm = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256)
            return f"{text}.{part(algorithm.sign(text.encode(), RSA_KEY))}"


@pytest.mark.parametrize("with_secret", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "another key",
        "an unknown key id",
        "the key id of another kind",
        "another algorithm",
        "another padding",
        "the public key as a secret",
        "the public key as a secret, without a key id",
        "the symmetric key of the set",
        "none",
        "a changed body",
        "an embedded key",
        "wrong aud",
        "wrong iss",
        "past",
        "no exp",
        "text exp",
        "ahead",
    ],
)
async def test_what_no_published_key_signed_is_refused(
    world: World, keys_file: Path, name: str, with_secret: bool
) -> None:
    await add_member(world, "acme", Role.TENANT_OWNER)
    await add_operator(world)
    with pytest.raises(RequestRefused) as refusal:
        await who(world, IssuerKeys(file=keys_file), forge(name), with_secret=with_secret)
    assert refusal.value.code is ErrorCode.UNAUTHENTICATED


@pytest.mark.parametrize("text", [None, "", "{}", "[]", '{"keys": 1}', '{"keys": [1]}', '{"keys": [{"kty": "RSA"}]}'])
async def test_a_broken_key_set_refuses_everybody(world: World, keys_file: Path, text: str | None) -> None:
    await add_member(world, "acme", Role.TENANT_OWNER)
    path = anyio.Path(keys_file)
    await (path.unlink() if text is None else path.write_text(text))
    token = jwt.encode(claims(), RSA_KEY, "RS256", headers={"kid": "r1"})
    with pytest.raises(RequestRefused) as refusal:
        await who(world, IssuerKeys(file=keys_file), token)
    assert refusal.value.code is ErrorCode.UNAUTHENTICATED


async def test_one_key_of_a_kind_unknown_to_us_does_not_spoil_the_others(world: World, keys_file: Path) -> None:
    await add_member(world, "acme", Role.TENANT_OWNER)
    path = anyio.Path(keys_file)
    keys = json.loads(await path.read_text())["keys"]
    odd = {"kty": "EC", "crv": "P-unheard-of", "x": "AA", "y": "AA", "kid": "odd"}
    await path.write_text(json.dumps({"keys": [odd, *keys]}))
    token = jwt.encode(claims(), RSA_KEY, "RS256", headers={"kid": "r1"})
    assert (await who(world, IssuerKeys(file=keys_file), token)).kind is PrincipalKind.MEMBER


async def test_the_keys_of_a_file_hold_for_the_whole_application(world: World, keys_file: Path) -> None:
    await add_member(world, "acme", Role.TENANT_OWNER)
    settings = world.settings.model_copy(update={"jwt_hs256_secret": None, "jwt_jwks_file": keys_file})
    app = create_app(settings, with_worker=False, clock=world.clock)
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://plafond.test") as http,
    ):
        client = Client(http)
        token = jwt.encode(claims(), EC_KEY, "ES256", headers={"kid": "e1"})
        data: Any = await client.data(token, "{ billingAccount { externalId } }")
        assert data["billingAccount"]["externalId"] == "acme"
        assert await is_refused(client, sign(claims(), secret_of(world)))
        assert await is_refused(client, forge("the public key as a secret"))
