"""Which fields an operation names, and how what is deprecated says when it goes."""

from datetime import date

import pytest
from graphql import build_schema, parse, validate

from plafond.api import schema
from plafond.schema.coordinates import find_short_notices, list_coordinates, list_deprecations, read_removal
from plafond.schema.operations import find_operation

SMALL = build_schema("""
  type Query { shop: Shop old: Int @deprecated(reason: "Ask `shop`. Since: 2026-01-31. Removal: 2027-01-31") }
  interface Named { name: String label: String @deprecated(reason: "Ask `name`. Removal: 2030-01-01") }
  type Shop implements Named { name: String label: String things(old: Int @deprecated, new: Int): [Thing] }
  type Thing { id: ID size: Size code: String @deprecated(reason: "x. Since: 2026-01-31. Removal: 2027-01-30") }
  enum Size { S M @deprecated(reason: "Since: 2026-01-31. Removal: 2027-02-30") }
  input Wish { name: String @deprecated(reason: "Removal: 2027-01-31. Since: 2026-01-31") }
""")
DOCUMENT = """
  query A { old __typename ...Root ... on Query { shop { name } } }
  query B { __schema { types { name } } shop @skip(if: true) { alias: name name } }
  fragment Root on Query { shop { ...Goods ... on Named { label } } }
  fragment Goods on Shop { things { id code } ...Deeper }
  fragment Deeper on Shop { things { size } }
"""


@pytest.mark.parametrize(
    ("operation", "current", "deprecated"),
    [
        (
            "A",
            {"Query.shop", "Shop.name", "Shop.things", "Thing.id", "Thing.size"},
            {"Query.old", "Named.label", "Thing.code"},
        ),
        ("B", {"Query.shop", "Shop.name"}, set()),
    ],
)
def test_each_field_that_an_operation_names_is_found_once(
    operation: str, current: set[str], deprecated: set[str]
) -> None:
    document = parse(DOCUMENT)
    assert validate(SMALL, document) == []
    found = list_coordinates(SMALL, document, find_operation(document, operation))
    assert (set(found.current), set(found.deprecated)) == (current, deprecated)
    assert len(found.current) + len(found.deprecated) == len(current | deprecated)


def test_whatever_is_deprecated_is_found() -> None:
    assert [coordinate for coordinate, _ in list_deprecations(SMALL)] == [
        "Named.label",
        "Query.old",
        "Shop.things(old:)",
        "Size.M",
        "Thing.code",
        "Wish.name",
    ]


def test_a_year_is_given_and_said_in_one_form() -> None:
    assert find_short_notices(SMALL) == ["Named.label", "Shop.things(old:)", "Size.M", "Thing.code", "Wish.name"]
    assert read_removal("Ask `shop`. Since: 2026-01-31. Removal: 2027-01-31") == date(2027, 1, 31)
    assert read_removal("Since: 2026-01-31. Removal: 2027-01-31.") is None


def test_our_own_schema_gives_a_year() -> None:
    assert find_short_notices(schema._schema) == []
