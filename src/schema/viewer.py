"""The caller and the server."""

from datetime import datetime

import strawberry

from .billing import BillingAccount
from .enums import Environment, PrincipalKind, Role
from .fields import said


@strawberry.type(description="An account that the caller belongs to.")
class ViewerAccount:
    """A membership."""

    account: BillingAccount = said("Which account.")
    role: Role = said("What the caller is there.")


@strawberry.type(description="Who is asking.")
class Viewer:
    """The caller."""

    kind: PrincipalKind = said("What the caller is.")
    display_name: str = said("For people to read.")
    roles: list[Role] = said("All roles, over all accounts.")
    scopes: list[str] = said("What an API key was made for; empty for people.")
    accounts: list[ViewerAccount] = said("The accounts the caller belongs to, at most 100; empty for an operator.")


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
