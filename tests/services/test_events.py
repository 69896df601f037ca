"""The types of events: the closed list is what the code tells, in words, and as the guide prints it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from plafond.services.alerts import OF_BUDGETS, OF_USAGE
from plafond.services.events import _TYPES_BY_KEY, EVENT_TYPES, TEST_TYPE, check_types

SERVICES = sorted(Path("src/services").rglob("*.py"))
NAMED_ELSEWHERE = {
    "services/subscriptions.py": "note_step and take_step are given it",
    "services/repayment.py": "of a refund",
    "services/payments.py": "of a charge",
    "services/refunds.py": "of a request",
    "services/alerts.py": "event_of",
    "services/exports.py": "of an export",
    "services/invites.py": "of an invitation",
    "services/keys.py": "of a key",
    "services/acknowledgements.py": "event_of",
}
"""Where what is emitted is not written at its place."""
GIVEN = re.compile(r"(subscription|payment|refund|usage|budget)\.[a-z_]+")


def emitted() -> Iterator[tuple[str, ast.expr, ast.expr]]:
    """The kind and the payload of each event that something emits."""
    for path in SERVICES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "emit":
                yield path.relative_to("src").as_posix(), node.args[1], node.args[2]


def test_every_kind_that_is_emitted_is_in_the_list() -> None:
    written = {kind.value for _, kind, _ in emitted() if isinstance(kind, ast.Constant)}
    assert written - EVENT_TYPES.keys() == set()
    elsewhere = {name for name, kind, _ in emitted() if not isinstance(kind, ast.Constant)}
    assert elsewhere == NAMED_ELSEWHERE.keys(), "say in EVENT_TYPES what it emits, and here where that is named"
    constants = {
        node.value
        for path in SERVICES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and GIVEN.fullmatch(node.value)
        if path.name != "events.py"
    }
    given = {*OF_USAGE.values(), *OF_BUDGETS.values()} | {
        name for name in EVENT_TYPES if name.partition(".")[0] in ("subscription", "payment", "refund")
    }
    assert given <= constants, "nothing emits these"
    assert given <= EVENT_TYPES.keys()


def test_every_id_in_a_payload_is_of_a_known_type() -> None:
    keys = {
        key.value
        for _, _, payload in emitted()
        for node in ast.walk(payload)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str) and key.value.endswith("Id")
    }
    assert {"invoiceId", "transactionId", "endpointId"} <= keys
    assert keys - _TYPES_BY_KEY.keys() == {"accountId"}


def test_the_guide_has_the_list() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.+) \|$", Path("docs/webhooks.md").read_text("utf-8"), re.MULTILINE)
    assert dict(rows) == EVENT_TYPES
    assert all(words.endswith(".") for words in EVENT_TYPES.values())


def test_a_test_is_no_event() -> None:
    assert check_types(None) is check_types([]) is check_types(EVENT_TYPES) is None
    assert "'webhook.test'" in (check_types([TEST_TYPE]) or "")
