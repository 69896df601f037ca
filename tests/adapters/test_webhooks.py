"""The courier: what leads inside is never asked, and a name is asked at the very address that was checked."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from plafond.adapters.webhooks import MAX_READ, HttpCourier, SystemResolver
from plafond.services.ports import SendingFailed
from plafond.services.rules.addresses import is_inside

from ..services.receiving_hooks import Receiver, drip, pour, run_receiver, status

PUBLIC = "93.184.215.14"
NAME = "hooks.example.com"


class Told:
    """A resolver that answers what it is told, one answer after the other; the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:  # noqa: ARG002
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@asynccontextmanager
async def carrying(courier: HttpCourier) -> AsyncGenerator[HttpCourier]:
    """Closes it in the end."""
    try:
        yield courier
    finally:
        await courier.close()


async def test_a_name_that_leads_inside_later_is_not_asked() -> None:
    """DNS rebinding: it was outside when the endpoint was made, and is inside when it is sent to."""
    async with run_receiver() as receiver:
        resolver = Told([PUBLIC], ["127.0.0.1"])
        async with carrying(HttpCourier(resolve=resolver)) as courier:
            url = f"http://{NAME}:{receiver.port}/"
            assert await courier.refuse(url) is None
            with pytest.raises(SendingFailed, match="leads inside a machine or network"):
                await courier.post(url, {}, b"{}")
        assert receiver.messages == []
        assert resolver.asked == [NAME, NAME]


async def test_the_address_that_was_checked_is_the_one_that_is_asked() -> None:
    """A resolver that changes its mind between the check and the connection is not asked twice."""
    async with run_receiver() as receiver:
        resolver = Told(["127.0.0.1"], ["192.0.2.1"])
        async with carrying(HttpCourier(resolve=resolver, allow_inside=True)) as courier:
            answer = await courier.post(f"http://{NAME}:{receiver.port}/a?b", {"x-y": "z"}, b"{}")
        assert (answer.status_code, answer.beginning) == (200, b"thanks")
        assert resolver.asked == [NAME]
        [message] = receiver.messages
        assert message.headers["host"] == f"{NAME}:{receiver.port}"
        assert (message.path, message.headers["x-y"]) == ("/a?b", "z")


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        [PUBLIC, "10.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["2002:7f00:1::"],
        ["169.254.169.254"],
        ["fd00:ec2::254"],
        ["fe80::1%eth0"],
        ["100.64.0.1"],
        ["0.0.0.0"],  # noqa: S104  # nothing is bound
        ["224.0.0.1"],
        ["255.255.255.255"],
        ["168.63.129.16"],
        ["nonsense"],
    ],
    ids=str,
)
async def test_one_address_inside_is_enough_to_be_refused(addresses: list[str]) -> None:
    async with carrying(HttpCourier(resolve=Told(addresses))) as courier:
        assert "leads inside" in (await courier.refuse(f"https://{NAME}/") or "")
        with pytest.raises(SendingFailed, match="leads inside"):
            await courier.post(f"https://{NAME}/", {}, b"{}")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "[::1]"])
async def test_the_systems_resolver_finds_out_every_spelling(host: str) -> None:
    async with carrying(HttpCourier()) as courier:
        with pytest.raises(SendingFailed, match="leads inside"):
            await courier.post(f"http://{host}:9/", {}, b"{}")


def test_what_is_outside() -> None:
    for address in (PUBLIC, "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e"):
        assert not is_inside(address), address


async def test_nobody_answers_for_a_name_that_is_not_there() -> None:
    async def nowhere(host: str, port: int) -> Sequence[str]:  # noqa: ARG001
        raise OSError("Name or service not known")

    async with carrying(HttpCourier(resolve=nowhere)) as courier:
        assert await courier.refuse(f"https://{NAME}/") is None
        with pytest.raises(SendingFailed, match=f"The connection failed: the host {NAME} is not known."):
            await courier.post(f"https://{NAME}/", {}, b"{}")
    async with carrying(HttpCourier(resolve=Told([]))) as courier:
        with pytest.raises(SendingFailed, match="is not known"):
            await courier.post(f"https://{NAME}/", {}, b"{}")


async def test_a_name_server_that_hangs_costs_no_more_than_the_time() -> None:
    async def never(host: str, port: int) -> Sequence[str]:  # noqa: ARG001
        await asyncio.Event().wait()
        return []

    async with carrying(HttpCourier(resolve=never, total_s=0.1)) as courier:
        with pytest.raises(SendingFailed, match=r"It did not answer within 0\.1 seconds"):
            await courier.post(f"https://{NAME}/", {}, b"{}")


async def test_the_next_address_is_asked_where_one_does_not_answer() -> None:
    async with run_receiver() as receiver:
        resolver = Told(["127.0.0.2", "127.0.0.1"])  # nothing listens at the first
        async with carrying(HttpCourier(resolve=resolver, allow_inside=True)) as courier:
            assert (await courier.post(f"http://{NAME}:{receiver.port}/", {}, b"{}")).status_code == 200


async def test_time_and_size_are_limited_as_a_whole() -> None:
    async with run_receiver() as receiver, carrying(HttpCourier(allow_inside=True, total_s=0.3)) as courier:
        receiver.answering = drip
        began = asyncio.get_running_loop().time()
        with pytest.raises(SendingFailed, match="did not answer within"):
            await courier.post(receiver.url, {}, b"{}")
        assert asyncio.get_running_loop().time() - began < 2
        receiver.answering = pour
        assert len((await courier.post(receiver.url, {}, b"{}")).beginning) == MAX_READ


async def test_no_proxy_no_cookie_no_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with run_receiver() as receiver, carrying(HttpCourier(allow_inside=True)) as courier:
        receiver.answering = status(302, Location=receiver.url, Set_Cookie="a=b")
        for _ in range(2):
            assert (await courier.post(receiver.url, {}, b"{}")).status_code == 302
        assert len(receiver.messages) == 2
        assert [message.headers.get("cookie") for message in receiver.messages] == [None, None]


async def test_a_second_message_takes_the_same_connection() -> None:
    resolver = Told(["127.0.0.1"])
    async with run_receiver() as receiver, carrying(HttpCourier(resolve=resolver, allow_inside=True)) as courier:
        for _ in range(3):
            await courier.post(f"http://{NAME}:{receiver.port}/", {}, b"{}")
    assert resolver.asked == [NAME]


def make_certificate(folder: Path, name: str) -> Path:
    """A certificate that proves a name to who trusts it, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


async def test_the_certificate_is_for_the_name_and_not_for_the_address(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, NAME)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate)
    asked_for: list[str | None] = []
    serving.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=serving)
    port = server.sockets[0].getsockname()[1]
    trusting = ssl.create_default_context(cafile=certificate)
    resolver = Told(["127.0.0.1"])
    try:
        async with carrying(HttpCourier(resolve=resolver, allow_inside=True, tls=trusting)) as courier:
            assert (await courier.post(f"https://{NAME}:{port}/", {}, b"{}")).status_code == 200
            with pytest.raises(SendingFailed, match="The connection failed"):
                await courier.post(f"https://other.example.com:{port}/", {}, b"{}")
        assert asked_for == [NAME, "other.example.com"]
        async with carrying(HttpCourier(resolve=resolver, allow_inside=True)) as courier:
            with pytest.raises(SendingFailed, match="The connection failed"):
                await courier.post(f"https://{NAME}:{port}/", {}, b"{}")
        assert len(receiver.messages) == 1
    finally:
        server.close()
        await server.wait_closed()


async def test_the_system_finds_addresses() -> None:
    assert "127.0.0.1" in await SystemResolver()("127.0.0.1", 443)
