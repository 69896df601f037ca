"""The caller and the server."""

from datetime import datetime

import strawberry

from .. import models
from .billing import ApiKey, BillingAccount
from .context import Info
from .enums import Environment, PrincipalKind, Right, Role
from .fields import field, said


@strawberry.type(description="An account that the caller belongs to.")
class ViewerAccount:
    """A membership."""

    account: BillingAccount = said("Which account.")
    role: Role = said("What the caller is there.")
    rights: list[Right] = said("What the caller may there, by role and by the scopes of its key.")


@strawberry.type(description="Who is asking.")
class Viewer:
    """The caller."""

    kind: PrincipalKind = said("What the caller is.")
    display_name: str = said("For people to read.")
    roles: list[Role] = said("All roles, over all accounts.")
    scopes: list[str] = said("What an API key was made for; empty for people.")
    rights: list[Right] = said("What the caller may over any of the accounts, by role and by the scopes of its key.")
    accounts: list[ViewerAccount] = said("The accounts the caller belongs to, at most 100; empty for an operator.")

    @field
    async def api_key(self, info: Info) -> ApiKey | None:
        """The API key that was shown, with its expiry, its networks and the accounts it opens; null for people."""
        key_id = info.context.principal.key_id
        row = None if key_id is None else await info.context.load.row(models.ApiKey, key_id)
        return None if row is None else ApiKey.of(row)


@strawberry.type(description="The server that answers.")
class ServerInfo:
    """The server."""

    version: str = said("The version of Plafond.")
    schema_version: str = said(
        "The first 12 digits of the SHA-256 of the schema as `plafond schema` prints it and schema.graphql holds it: "
        "it changes when the schema does."
    )
    environment: Environment = said("Whether money is real here.")
    time: datetime = said("The server's clock.")
