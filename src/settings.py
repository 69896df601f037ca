"""What a deployment decides. Read once, at the entry points; every name is an environment variable `PLAFOND_…`."""

import re
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .faults import Fault, read_fault

_MAILBOX = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")


class Environment(StrEnum):
    """Whether money is real here. Fixed in the database by the first migration."""

    SANDBOX = "SANDBOX"
    PRODUCTION = "PRODUCTION"


class SettingMissing(Exception):
    """A command needs a setting that is not there. Its text says which, and what for."""


class Settings(BaseSettings):
    """The settings of one process."""

    model_config = SettingsConfigDict(env_prefix="PLAFOND_", frozen=True, extra="ignore", hide_input_in_errors=True)

    environment: Environment = Environment.SANDBOX
    database_url: str = "sqlite:///var/plafond.db"
    """SQLAlchemy address: `sqlite:///PATH` or `postgresql://USER@HOST/NAME`."""
    usage_retention_days: int = Field(default=400, ge=100)
    """How long raw usage events are kept, and their ids remembered. What they add up to is kept for good."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    drain_seconds: float = Field(default=1.0, ge=0, le=300)
    """How long a server that was told to stop goes on taking requests after `/readyz` said no: longer than a balancer
    takes to see it."""
    replica_url: str | None = None
    """A replica of a PostgreSQL that queries read from. It may lag: mutations, streams and sign-in read the primary."""

    redis_url: SecretStr | None = None
    """Redis, such as redis://:PASSWORD@HOST:6379: wakes the live streams of all processes at once. It keeps nothing."""

    jwt_issuer: str | None = None
    """The `iss` that a JWT must carry. Without it no JWT is taken, only API keys."""
    jwt_audience: str = "plafond"
    jwt_jwks_url: str | None = None
    """Where the issuer publishes its public keys (RS256, ES256)."""
    jwt_jwks_file: Path | None = None
    """The same from a file, for issuers without an address."""
    jwt_hs256_secret: SecretStr | None = None
    """Takes HS256 tokens too. Only for tests and closed deployments: whoever checks such a token can also make one."""

    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Browser origins that may open sockets, besides the server's own: separated by commas."""

    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses and networks of balancers, separated by commas, that say in `X-Forwarded-For` where a request comes
    from: API keys may be limited to networks, and the audit log names the address. Nobody else is believed."""

    public_url: str | None = None
    """Where clients reach this server, such as https://billing.example.com: links begin with it."""
    dashboard_url: str | None = None
    """Where people read their billing page, such as https://app.example.com/billing: links in mails lead there."""
    link_secret: SecretStr | None = None
    """Signs the links to documents: the same in every process that serves, at least 32 characters.

    Production needs one. A sandbox without it makes its own, and links end with the process.
    """

    smtp_url: SecretStr | None = None
    """The mail server, such as smtp://USER:PASSWORD@HOST:587 (STARTTLS) or smtps://USER:PASSWORD@HOST:465.

    A production without it sends no mail; a sandbox without it writes mails to a folder.
    """
    mail_from: str = "billing@plafond.example"
    """Who mails are from."""
    mail_reply_to: str | None = None
    """Where answers to them go, if not there."""
    mail_folder: Path = Path("var/mail")
    """Where a sandbox writes its mails."""

    stripe_key: SecretStr | None = None
    """The secret key at Stripe: with it, Stripe collects. A production takes live keys, a sandbox all others."""
    stripe_publishable_key: str | None = None
    """What Stripe's own script is started with where a cardholder enters a card."""
    stripe_webhook_secrets: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """What Stripe signs its messages to `/webhooks/stripe` with: several, by commas, while one is exchanged."""
    stripe_url: str | None = None
    """Asks this address instead of Stripe's: for rehearsals in a sandbox."""

    webhook_allow_inside: bool = False
    """Lets webhooks go inside, over http too: for tries on one machine, in a sandbox. Never in production."""

    fault: Annotated[Fault | None, NoDecode] = None
    """Rehearses a failure in this process: `POINT:ACTION` or `POINT:ACTION:N`, by `faults.py`. Never in production."""

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        # Not `*`: then whoever reaches the port could say what it likes.
        return tuple(str(ip_network(item, strict=False)) for item in value)

    @field_validator("allowed_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split_list(cls, value: object) -> object:
        return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value

    @field_validator("stripe_webhook_secrets", mode="before")
    @classmethod
    def _split_secrets(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(SecretStr(item.strip()) for item in value.split(",") if item.strip())

    @field_validator("fault", mode="before")
    @classmethod
    def _read_fault(cls, value: object) -> object:
        return read_fault(value) if isinstance(value, str) else value

    @field_validator("public_url", "dashboard_url", "stripe_url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
            raise ValueError("an address such as https://billing.example.com is wanted")
        return value.rstrip("/")

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and urlsplit(value.get_secret_value()).scheme not in ("redis", "rediss", "unix"):
            raise ValueError("an address such as redis://127.0.0.1:6379 is wanted")
        return value

    @field_validator("link_secret")
    @classmethod
    def _check_link_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("it needs at least 32 characters")
        return value

    @field_validator("mail_from", "mail_reply_to")
    @classmethod
    def _check_mailbox(cls, value: str | None) -> str | None:
        if value is not None and not _MAILBOX.fullmatch(value):
            raise ValueError("an address such as billing@example.com is wanted")
        return value

    @model_validator(mode="after")
    def _mail_is_from_somebody(self) -> Self:
        if (
            self.smtp_url is not None
            and self.environment is Environment.PRODUCTION
            and self.mail_from == type(self).model_fields["mail_from"].default
        ):
            raise ValueError("PLAFOND_SMTP_URL is set but no PLAFOND_MAIL_FROM: say who mails are from")
        return self

    @model_validator(mode="after")
    def _production_is_not_hurt(self) -> Self:
        if self.fault is not None and self.environment is Environment.PRODUCTION:
            raise ValueError("PLAFOND_FAULT is for rehearsals in a sandbox: take it away from a production")
        return self

    @model_validator(mode="after")
    def _webhooks_stay_outside(self) -> Self:
        if self.webhook_allow_inside and self.environment is Environment.PRODUCTION:
            raise ValueError(
                "PLAFOND_WEBHOOK_ALLOW_INSIDE lets tenants reach what only this machine can: it is for tries in a "
                "sandbox, and not for a production"
            )
        return self

    @model_validator(mode="after")
    def _a_replica_has_a_primary(self) -> Self:
        if self.replica_url is not None and not (
            self.replica_url.startswith("postgresql") and self.database_url.startswith("postgresql")
        ):
            raise ValueError("PLAFOND_REPLICA_URL names a replica of a PostgreSQL: both addresses are postgresql://…")
        return self

    @model_validator(mode="after")
    def _money_is_real_or_is_not(self) -> Self:
        if self.stripe_key is None:
            return self
        # A restricted key (rk_) tells by its next word too.
        is_live = self.stripe_key.get_secret_value().split("_")[1:2] == ["live"]
        if is_live and self.environment is Environment.SANDBOX:
            raise ValueError("PLAFOND_STRIPE_KEY is a live key, which moves real money: a sandbox takes a test key")
        if not is_live and self.environment is Environment.PRODUCTION:
            raise ValueError("PLAFOND_STRIPE_KEY is not a live key (sk_live_…): a production takes no other")
        if self.stripe_url is not None and self.environment is Environment.PRODUCTION:
            raise ValueError("PLAFOND_STRIPE_URL is for rehearsals in a sandbox: take it away from a production")
        if not self.stripe_webhook_secrets:
            raise ValueError(
                "PLAFOND_STRIPE_KEY is set but no PLAFOND_STRIPE_WEBHOOK_SECRETS: without Stripe's messages nobody "
                "learns of disputes, refunds that fail, and payments that were confirmed"
            )
        return self

    @model_validator(mode="after")
    def _jwt_needs_a_key(self) -> Self:
        if self.jwt_issuer and not (self.jwt_jwks_url or self.jwt_jwks_file or self.jwt_hs256_secret):
            raise ValueError(
                "PLAFOND_JWT_ISSUER is set but no key to check its tokens: "
                "set PLAFOND_JWT_JWKS_URL, PLAFOND_JWT_JWKS_FILE or PLAFOND_JWT_HS256_SECRET"
            )
        if self.jwt_hs256_secret and len(self.jwt_hs256_secret.get_secret_value()) < 32:
            raise ValueError("PLAFOND_JWT_HS256_SECRET needs at least 32 characters")
        return self

    @property
    def base_url(self) -> str:
        """What absolute links begin with."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_url or f"http://{host}:{self.port}"
