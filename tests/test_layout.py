"""How the code is built: what imports what, and what must not stand in it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src"
FILES = sorted(SRC.rglob("*.py"))
NAMES = [path.relative_to(SRC).as_posix() for path in FILES]
HEAVY = ("weasyprint", "stripe", "facturx", "redis")


def parse(name: str) -> ast.Module:
    return ast.parse((SRC / name).read_text("utf-8"), name)


def imported(tree: ast.Module) -> Iterator[str]:
    """The modules of other packages that a file imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def roots(name: str) -> set[str]:
    return {module.partition(".")[0] for module in imported(parse(name))}


def test_the_application_loads_nothing_heavy() -> None:
    code = f"import sys, plafond.app; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", NAMES)
def test_the_package_imports_itself_relatively(name: str) -> None:
    assert "plafond" not in roots(name)


@pytest.mark.parametrize("name", NAMES)
def test_no_failure_is_swallowed(name: str) -> None:
    """No handler of everything whose body does nothing."""

    def catches_all(kind: ast.expr | None) -> bool:
        if isinstance(kind, ast.Tuple):
            return any(catches_all(each) for each in kind.elts)
        return kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException"))

    def does_nothing(body: list[ast.stmt]) -> bool:
        return all(
            isinstance(statement, ast.Pass | ast.Continue)
            or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
            for statement in body
        )

    def suppresses_all(call: ast.Call) -> bool:
        called = ast.unparse(call.func).rpartition(".")[2]
        return called == "suppress" and any(catches_all(argument) for argument in call.args)

    lines = [
        node.lineno
        for node in ast.walk(parse(name))
        if (isinstance(node, ast.ExceptHandler) and catches_all(node.type) and does_nothing(node.body))
        or (isinstance(node, ast.Call) and suppresses_all(node))
    ]
    assert lines == []


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("models/", "services/"))])
def test_models_and_services_know_nothing_of_graphql_or_http(name: str) -> None:
    assert roots(name) & {"strawberry", "graphql", "starlette", "aiodataloader"} == set()


def test_one_file_loads_data() -> None:
    assert [name for name in NAMES if "aiodataloader" in roots(name)] == ["resolvers/loaders.py"]


def test_no_float_comes_near_money() -> None:
    tree = parse("services/rules/money.py")
    floats = [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Constant) and isinstance(node.value, float))
        or (isinstance(node, ast.Name) and node.id == "float")
        or (isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div))
    ]
    assert floats == []
