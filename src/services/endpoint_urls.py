"""The URLs that webhooks may be sent to: what is refused by its spelling alone, before any name is looked up."""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import SplitResult, urlsplit

from .errors import InvalidInput
from .inputs import Path
from .rules.addresses import is_inside

MAX_URL = 2_000
HTTPS_PORT = 443
FIRST_FREE_PORT = 1_024
"""Below it are the ports of mail, shells and the like, which a URL could be made to talk to."""

_PRINTABLE = re.compile(r"[!-~]+")
_NAME = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?")
"""By this browsers tell an IPv4 address in whatever spelling from a name."""
_INSIDE_NAMES = frozenset(
    {"arpa", "corp", "home", "internal", "intranet", "invalid", "lan", "local", "localdomain", "localhost", "onion"}
    | {"private", "workgroup"}
)
"""Top-level names that the world does not have: whoever answers to them stands inside."""


def check_url(text: str, path: Path, *, allow_inside: bool = False) -> str:
    """A URL that webhooks may be sent to, as it was written.

    `allow_inside` is for tries on one machine, in a sandbox: then it may lead inside, and be http.
    """
    url = _split(text, path)
    if url.scheme != "https" and not (allow_inside and url.scheme == "http"):
        raise InvalidInput("Webhooks are sent over https only: the URL begins with https://.", path)
    if "@" in url.netloc:
        raise InvalidInput("The URL holds no user and no password: messages are proved by their signature.", path)
    if "#" in text:
        raise InvalidInput("The URL ends before a `#`: what stands behind it is never sent.", path)
    try:
        port = HTTPS_PORT if url.port is None else url.port
    except ValueError as error:
        raise InvalidInput("The URL's port is a whole number up to 65535.", path) from error
    if not allow_inside and port != HTTPS_PORT and port < FIRST_FREE_PORT:
        raise InvalidInput(f"The URL's port is {HTTPS_PORT}, or {FIRST_FREE_PORT} or higher, not {port}.", path)
    _check_host(url.hostname or "", path, allow_inside=allow_inside)
    return text


def _split(text: str, path: Path) -> SplitResult:
    if not 1 <= len(text) <= MAX_URL:
        raise InvalidInput(f"A URL has 1 to {MAX_URL:,} characters.", path)
    if not _PRINTABLE.fullmatch(text) or "\\" in text:
        raise InvalidInput(
            "A URL is written in ASCII, without blanks, control characters and backslashes: a host with other letters "
            "as xn--…, all else in %-escapes.",
            path,
        )
    try:
        return urlsplit(text)
    except ValueError as error:
        raise InvalidInput("This is no URL such as https://example.com/hooks.", path) from error


def _check_host(host: str, path: Path, *, allow_inside: bool) -> None:
    if "%" in host:
        raise InvalidInput("The URL's host holds no `%`.", path)
    if ":" in host:
        try:
            address = str(IPv6Address(host))
        except AddressValueError as error:
            raise InvalidInput("The URL's host is no IPv6 address.", path) from error
    elif _ENDS_IN_NUMBER.fullmatch(host):
        try:
            address = str(IPv4Address(host))
        except AddressValueError as error:
            raise InvalidInput("An address in a URL is written as four decimal numbers.", path) from error
    else:
        _check_name(host.lower(), path, allow_inside=allow_inside)
        return
    if is_inside(address) and not allow_inside:
        raise InvalidInput(INSIDE.format(host), path)


def _check_name(name: str, path: Path, *, allow_inside: bool) -> None:
    if allow_inside and name == "localhost":
        return
    if name.rstrip(".").rpartition(".")[2] in _INSIDE_NAMES:
        raise InvalidInput(INSIDE.format(name), path)
    if not _NAME.fullmatch(name):
        raise InvalidInput("The URL's host is a whole name such as hooks.example.com, without a dot at its end.", path)


INSIDE = "The URL leads to {}, which lies inside a machine or network: webhooks go to public addresses only."
