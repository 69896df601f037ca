"""What a deployment may decide, and what is refused at the start."""

import os
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from plafond.settings import Environment, Settings

ISSUER = "https://issuer.test"
SECRET = "a secret of thirty-two characters!"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a test sets."""
    for name in [name for name in os.environ if name.startswith("PLAFOND_")]:
        monkeypatch.delenv(name)


def test_an_issuer_without_a_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="PLAFOND_JWT_ISSUER is set but no key"):
        Settings(jwt_issuer=ISSUER)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jwt_hs256_secret", SECRET),
        ("jwt_jwks_url", "https://issuer.test/jwks"),
        ("jwt_jwks_file", "keys.json"),
    ],
)
def test_an_issuer_with_a_key_is_taken(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAFOND_JWT_ISSUER", ISSUER)
    monkeypatch.setenv(f"PLAFOND_{name.upper()}", value)
    assert Settings().jwt_issuer == ISSUER


@pytest.mark.parametrize("length", [1, 31])
def test_a_short_secret_is_refused_and_not_shown(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAFOND_JWT_ISSUER", ISSUER)
    monkeypatch.setenv("PLAFOND_JWT_HS256_SECRET", "ß" * length)
    with pytest.raises(ValidationError, match="PLAFOND_JWT_HS256_SECRET needs at least 32 characters") as refused:
        Settings()
    assert "ß" not in str(refused.value)


def test_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAFOND_JWT_HS256_SECRET", SECRET)
    assert SECRET not in repr(Settings())


@pytest.mark.parametrize("name", ["STAGING", "production", ""])
def test_an_unknown_environment_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAFOND_ENVIRONMENT", name)
    with pytest.raises(ValidationError, match="environment"):
        Settings()


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_that_is_none_is_refused(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAFOND_PORT", port)
    with pytest.raises(ValidationError, match="port"):
        Settings()


def test_nothing_set_is_a_sandbox_for_this_machine_only() -> None:
    settings = Settings()
    assert settings.environment is Environment.SANDBOX
    assert settings.host == "127.0.0.1"
    assert settings.jwt_issuer is None
    assert settings.allowed_origins == ()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1


def test_origins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAFOND_ALLOWED_ORIGINS", "https://app.test, https://admin.test")
    assert Settings().allowed_origins == ("https://app.test", "https://admin.test")


def test_trusted_proxies_are_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().trusted_proxies == ()
    monkeypatch.setenv("PLAFOND_TRUSTED_PROXIES", "10.0.0.1, 192.168.0.0/16,2001:db8::/32")
    assert Settings().trusted_proxies == ("10.0.0.1/32", "192.168.0.0/16", "2001:db8::/32")


@pytest.mark.parametrize("given", ["*", "balancer", "10.0.0.0/33"])
def test_a_trusted_proxy_that_is_no_network_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAFOND_TRUSTED_PROXIES", given)
    with pytest.raises(ValidationError, match="trusted_proxies"):
        Settings()


@pytest.mark.parametrize("length", [1, 31])
def test_a_short_link_secret_is_refused_and_not_shown(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAFOND_LINK_SECRET", "ß" * length)
    with pytest.raises(ValidationError, match="needs at least 32 characters") as refused:
        Settings()
    assert "ß" not in str(refused.value)
    monkeypatch.setenv("PLAFOND_LINK_SECRET", SECRET)
    assert SECRET not in repr(Settings())


@pytest.mark.parametrize(
    "url", ["billing.example.com", "ftp://billing.example.com", "https://", "https://a.test/?b", ""]
)
def test_a_public_url_that_is_none_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAFOND_PUBLIC_URL", url)
    with pytest.raises(ValidationError, match=r"https://billing\.example\.com is wanted"):
        Settings()


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"host": "::1", "port": 9_000}, "http://[::1]:9000"),
        ({"public_url": "https://billing.example.com/"}, "https://billing.example.com"),
        ({"public_url": "https://example.com/billing/"}, "https://example.com/billing"),
    ],
)
def test_links_begin_with_the_public_url_or_with_host_and_port(given: dict[str, Any], base: str) -> None:
    assert Settings(**given).base_url == base


# Stripe

WITH_STRIPE: dict[str, Any] = {"stripe_key": "sk_test_1", "stripe_webhook_secrets": "whsec_1"}


def test_without_a_key_nothing_of_stripe_is_set() -> None:
    settings = Settings()
    assert (settings.stripe_key, settings.stripe_url, settings.stripe_webhook_secrets) == (None, None, ())


@pytest.mark.parametrize("key", ["sk_test_1", "rk_test_1", "sk_1_live", "sk_liv_e", "nonsense"])
def test_a_sandbox_takes_a_key_that_moves_nothing(key: str) -> None:
    assert Settings(**{**WITH_STRIPE, "stripe_key": key}).environment is Environment.SANDBOX


@pytest.mark.parametrize("key", ["sk_live_1", "rk_live_1"])
def test_a_live_key_is_for_a_production(key: str) -> None:
    given = {**WITH_STRIPE, "stripe_key": key}
    with pytest.raises(ValidationError, match="a sandbox takes a test key") as refused:
        Settings(**given)
    assert key not in str(refused.value)
    assert Settings(**given, environment=Environment.PRODUCTION).stripe_key is not None


@pytest.mark.parametrize("key", ["sk_test_1", "rk_test_1", "sk_1_live", "nonsense", ""])
def test_a_production_takes_no_other_key(key: str) -> None:
    with pytest.raises(ValidationError, match="a production takes no other"):
        Settings(**{**WITH_STRIPE, "stripe_key": key}, environment=Environment.PRODUCTION)


def test_a_production_asks_nobody_but_stripe() -> None:
    given = {**WITH_STRIPE, "stripe_url": "http://127.0.0.1:1"}
    assert Settings(**given).stripe_url == "http://127.0.0.1:1"
    with pytest.raises(ValidationError, match="PLAFOND_STRIPE_URL is for rehearsals"):
        Settings(**{**given, "stripe_key": "sk_live_1"}, environment=Environment.PRODUCTION)


@pytest.mark.parametrize("url", ["127.0.0.1:1", "ftp://127.0.0.1", ""])
def test_an_address_of_stripe_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="is wanted"):
        Settings(**WITH_STRIPE, stripe_url=url)


@pytest.mark.parametrize("secrets", ["", " , ,"])
def test_a_key_without_webhook_secrets_is_refused(secrets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAFOND_STRIPE_KEY", "sk_test_1")
    monkeypatch.setenv("PLAFOND_STRIPE_WEBHOOK_SECRETS", secrets)
    with pytest.raises(ValidationError, match="no PLAFOND_STRIPE_WEBHOOK_SECRETS"):
        Settings()


def test_webhook_secrets_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAFOND_STRIPE_KEY", "sk_test_1")
    monkeypatch.setenv("PLAFOND_STRIPE_WEBHOOK_SECRETS", "whsec_new, whsec_old")
    settings = Settings()
    assert [secret.get_secret_value() for secret in settings.stripe_webhook_secrets] == ["whsec_new", "whsec_old"]
    for secret in ("sk_test_1", "whsec_new", "whsec_old"):
        assert secret not in repr(settings) + settings.model_dump_json()


@pytest.mark.parametrize("address", ["redis://127.0.0.1:6379", "rediss://:secret@redis.test", "unix:///run/redis.sock"])
def test_an_address_of_redis_is_taken(address: str) -> None:
    assert ":secret@" not in repr(Settings(redis_url=SecretStr(address)))


@pytest.mark.parametrize("address", ["127.0.0.1:6379", "http://redis.test", ""])
def test_another_address_than_of_redis_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="redis://"):
        Settings(redis_url=SecretStr(address))


def test_only_a_sandbox_lets_webhooks_go_inside() -> None:
    assert Settings().webhook_allow_inside is False
    assert Settings(webhook_allow_inside=True).webhook_allow_inside
    with pytest.raises(ValidationError, match="PLAFOND_WEBHOOK_ALLOW_INSIDE lets tenants reach"):
        Settings(webhook_allow_inside=True, environment=Environment.PRODUCTION)
