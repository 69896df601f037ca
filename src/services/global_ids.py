"""Global ids: what the API, its events and its webhooks call an object by."""

from base64 import urlsafe_b64encode


def encode_global_id(type_name: str, *key: object) -> str:
    """The opaque id of an object, by its GraphQL type and its key."""
    text = ":".join([type_name, *map(str, key)])
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")
