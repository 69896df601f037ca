"""What proves a webhook: Standard Webhooks' signature over its id, its instant and its very bytes."""

import base64
import secrets
from collections.abc import Sequence
from datetime import datetime

from standardwebhooks import Webhook

PREFIX = "whsec_"
SECRET_BYTES = 32


def make_secret() -> str:
    """A new secret, as the receiver's library takes it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def sign_message(message_id: str, at: datetime, body: str, signed_with: Sequence[str]) -> dict[str, str]:
    """The headers of a message: one signature for each secret, while one is exchanged for another."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, at, body) for secret in signed_with),
    }
