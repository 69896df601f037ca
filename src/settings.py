"""What a deployment decides. Read once, at the entry points; every name is an environment variable `PLAFOND_…`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Environment(StrEnum):
    """Whether money is real here. Fixed in the database by the first migration."""

    SANDBOX = "SANDBOX"
    PRODUCTION = "PRODUCTION"


class Settings(BaseSettings):
    """The settings of one process."""

    model_config = SettingsConfigDict(env_prefix="PLAFOND_", frozen=True, extra="ignore", hide_input_in_errors=True)

    environment: Environment = Environment.SANDBOX
    database_url: str = "sqlite:///var/plafond.db"
    """SQLAlchemy address: `sqlite:///PATH` or `postgresql://USER@HOST/NAME`."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)

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

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value

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
