"""The schema's own promises: described, specified, guarded, and found again by id."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest
from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLScalarType,
    build_schema,
    get_named_type,
    is_composite_type,
    is_list_type,
    is_non_null_type,
    is_required_argument,
    is_required_input_field,
    is_specified_scalar_type,
)

from plafond.adapters.bus import InProcessBus
from plafond.api import print_schema, schema
from plafond.resolvers.context import Context
from plafond.resolvers.query import FINDERS
from plafond.schema.fields import Guard
from plafond.services.access import Right
from plafond.settings import Settings

from ..conftest import Client, World

BUILT = build_schema(print_schema())
OWN_TYPES = {name: kind for name, kind in BUILT.type_map.items() if not name.startswith("__")}
ROOTS = ("Query", "Mutation", "Subscription")
COMMITTED = Path("schema.graphql").read_bytes()
NODE_TYPES = sorted(
    kind.name for kind in BUILT.get_possible_types(cast("GraphQLInterfaceType", BUILT.type_map["Node"]))
)


def root_fields() -> list[tuple[str, str]]:
    return [(root, name) for root in ROOTS for name in cast("GraphQLObjectType", BUILT.type_map[root]).fields]


SAMPLES = {
    "BigInt": "1",
    "Boolean": "true",
    "CountryCode": '"DE"',
    "CurrencyCode": '"USD"',
    "Date": '"2026-11-25"',
    "DateTime": '"2026-11-25T12:00:00Z"',
    "EmailAddress": '"a@example.com"',
    "Float": "1",
    "ID": '"x"',
    "Int": "1",
    "JSON": "{}",
    "String": '"x"',
}
"""A value of each scalar that a caller can give."""


def literal_for(kind: GraphQLInputType) -> str:
    """A value of a required type: of an input the fields that cannot be left out, of a list nothing."""
    if is_non_null_type(kind):
        return literal_for(kind.of_type)
    if is_list_type(kind):
        return "[]"
    if isinstance(kind, GraphQLEnumType):
        return str(next(iter(kind.values)))
    if isinstance(kind, GraphQLInputObjectType):
        given = (f"{key}: {literal_for(field.type)}" for key, field in kind.fields.items() if is_required(field))
        return f"{{ {', '.join(given)} }}"
    return SAMPLES[str(kind)]


def is_required(field: GraphQLArgument | GraphQLInputField) -> bool:
    return is_required_argument(field) if isinstance(field, GraphQLArgument) else is_required_input_field(field)


def document_for(root: str, name: str) -> str:
    """The smallest operation that asks for a root field."""
    asked = cast("GraphQLObjectType", BUILT.type_map[root]).fields[name]
    given = ", ".join(f"{key}: {literal_for(arg.type)}" for key, arg in asked.args.items() if is_required(arg))
    below = " { __typename }" if is_composite_type(get_named_type(asked.type)) else ""
    return f"{root.lower()} {{ {name}{f'({given})' if given else ''}{below} }}"


def describe() -> Iterator[tuple[str, str | None]]:
    """Everything that has a description, with it."""
    for name, kind in OWN_TYPES.items():
        if isinstance(kind, GraphQLScalarType) and is_specified_scalar_type(kind):
            continue
        yield name, kind.description
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            for field_name, field in kind.fields.items():
                yield f"{name}.{field_name}", field.description
                for arg_name, arg in field.args.items():
                    yield f"{name}.{field_name}({arg_name})", arg.description
        elif isinstance(kind, GraphQLInputObjectType):
            for field_name, input_field in kind.fields.items():
                yield f"{name}.{field_name}", input_field.description
        elif isinstance(kind, GraphQLEnumType):
            for value_name, value in kind.values.items():
                yield f"{name}.{value_name}", value.description


def test_the_committed_schema_is_the_code_s() -> None:
    assert Path("schema.graphql").read_text() == print_schema()


def test_everything_is_described() -> None:
    assert [place for place, description in describe() if not (description or "").strip()] == []


def test_every_scalar_of_ours_says_where_it_is_specified() -> None:
    scalars = [kind for kind in OWN_TYPES.values() if isinstance(kind, GraphQLScalarType)]
    own = [kind for kind in scalars if not is_specified_scalar_type(kind)]
    assert len(own) >= 6
    assert [kind.name for kind in own if not kind.specified_by_url] == []


def test_every_root_field_declares_a_right() -> None:
    for root in ROOTS:
        definition: Any = schema.get_type_by_name(root)
        assert definition is not None
        assert definition.fields
        for field in definition.fields:
            assert isinstance(field.metadata.get("right"), Right), f"{root}.{field.python_name}"


def test_of_an_account_only_this_is_for_all_its_members() -> None:
    definition: Any = schema.get_type_by_name("BillingAccount")
    rights = {
        field.python_name: [one.right for one in field.extensions if isinstance(one, Guard)]
        for field in definition.fields
    }
    assert all(len(held) <= 1 for held in rights.values())
    for_all = {name for name, held in rights.items() if not held or held == [Right.READ_USAGE]}
    assert for_all == {
        "id", "name", "currency", "timezone", "locale", "spike_alerts", "keys_may_ingest", "change_cursor",
        "created_at", "updated_at", "viewer_can", "usage", "reservations", "alerts", "alert_coverage",
        "ownership_transfer",
    }  # fmt: skip


@pytest.mark.parametrize(("root", "name"), root_fields())
async def test_without_a_caller_no_root_field_answers(root: str, name: str) -> None:
    # There is no database behind this context: whoever reads before asking fails otherwise.
    context = Context(
        database=cast("Any", None),
        bus=InProcessBus(),
        settings=Settings(),
        signing_keys=None,
        processor=cast("Any", None),
        link_key=b"",
        hooks=cast("Any", None),
        origin="test",
        request_id="r1",
    )
    document = document_for(root, name)
    if root == "Subscription":
        source: Any = await schema.subscribe(document, context_value=context)
        results = [source] if hasattr(source, "errors") else [result async for result in source]
    else:
        results = [await schema.execute(document, context_value=context)]
    assert len(results) == 1
    assert not results[0].data or set(results[0].data.values()) == {None}
    assert [error.extensions for error in results[0].errors] == [{"code": "UNAUTHENTICATED", "requestId": "r1"}]


async def test_without_a_token_every_root_field_is_401(client: Client, world: World) -> None:
    world.statements.clear()
    for root, name in [*root_fields(), ("Query", "__schema"), ("Query", "noSuchField")]:
        document = document_for(root, name) if not name.startswith(("__", "no")) else f"{{ {name} {{ __typename }} }}"
        response = await client.http.post("/graphql", json={"query": document})
        assert response.status_code == 401, name
        assert response.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
        assert "data" not in response.json()
    assert world.statements == []


@pytest.mark.parametrize("name", NODE_TYPES)
def test_every_node_is_found_again(name: str) -> None:
    assert name in FINDERS


def test_there_is_no_finder_without_a_node() -> None:
    assert sorted(set(FINDERS) - set(NODE_TYPES)) == []


def test_connections_have_what_relay_asks_for() -> None:
    connections = [name for name in OWN_TYPES if name.endswith("Connection")]
    assert connections
    for name in connections:
        fields = cast("GraphQLObjectType", OWN_TYPES[name]).fields
        item = name.removesuffix("Connection")
        assert str(fields["edges"].type) == f"[{item}Edge!]!"
        assert str(fields["nodes"].type) == f"[{item}!]!"
        assert str(fields["pageInfo"].type) == "PageInfo!"
        assert str(fields["totalCount"].type) == "Int!"
        edge = cast("GraphQLObjectType", OWN_TYPES[f"{item}Edge"]).fields
        assert {key: str(field.type) for key, field in edge.items()} == {"cursor": "String!", "node": f"{item}!"}


def test_every_list_field_that_pages_takes_all_four_arguments() -> None:
    for name, kind in OWN_TYPES.items():
        if not isinstance(kind, GraphQLObjectType):
            continue
        for field_name, field in kind.fields.items():
            if get_named_type(field.type).name.endswith("Connection"):
                assert {"first", "after", "last", "before"} <= set(field.args), f"{name}.{field_name}"


@pytest.mark.parametrize(
    "name",
    [
        "Alert",
        "BillingAccount",
        "Budget",
        "Invoice",
        "Notice",
        "PaymentMethod",
        "PlanSubscription",
        "Transaction",
    ],
)
def test_entities_say_when_they_were_made_and_changed(name: str) -> None:
    fields = cast("GraphQLObjectType", OWN_TYPES[name]).fields
    assert str(fields["createdAt"].type) == "DateTime!"
    assert str(fields["updatedAt"].type) == "DateTime!"


def test_node_types_and_interface_agree() -> None:
    for name in NODE_TYPES:
        kind = OWN_TYPES[name]
        assert isinstance(kind, GraphQLObjectType)
        assert str(kind.fields["id"].type) == "ID!"


def test_user_errors_are_never_null() -> None:
    for field in cast("GraphQLObjectType", OWN_TYPES["Mutation"]).fields.values():
        assert list(field.args) == ["input"]
        payload = cast("GraphQLObjectType", get_named_type(field.type))
        assert str(payload.fields["userErrors"].type) == "[UserError!]!"
        results = [item for key, item in payload.fields.items() if key != "userErrors"]
        assert [item for item in results if str(item.type).endswith("!")] == []


async def test_the_schema_s_version_is_the_committed_file_s_hash(client: Client, world: World) -> None:
    data = cast("Any", await client.data(world.operator, "{ serverInfo { schemaVersion } }"))
    assert data["serverInfo"]["schemaVersion"] == sha256(COMMITTED).hexdigest()[:12]


async def test_usage_of_an_unknown_metric_is_refused(client: Client, world: World) -> None:
    query = '{ billingAccount(externalId: "acme") { usage(metrics: [%s]) { used } } }'
    answer = cast("Any", await client.ask(world.operator, query % '"email_sends", "nope"'))
    (error,) = answer["errors"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert error["message"].startswith("There is no metric 'nope': known are custom_domains, email_sends,")
    data = cast("Any", await client.data(world.operator, query % '"email_sends"'))
    assert len(data["billingAccount"]["usage"]) == 1
