"""Strict JSON: what RFC 8259 allows, and no more of it than can be handled."""

import json
from typing import Any, NoReturn

MAX_BYTES = 1024 * 1024


def read_json(text: str | bytes) -> Any:
    """The value of a JSON text. `ValueError` for anything else: NaN, bytes that are not UTF-8, nesting without end."""
    try:
        return json.loads(text.decode() if isinstance(text, bytes) else text, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("The JSON is nested too deep.") from error


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number.")
