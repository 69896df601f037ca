"""Charts of usage reports: a few shapes of SVG, written by hand. What they show is told beside them as text."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from html import escape

from ..services.rules.thresholds import BUILT_IN

MARKS = tuple(BUILT_IN)
"""The shares of a limit at which alerts are raised, in per cent."""
BLUE, PALE, GREY, INK, AMBER, RED = "#1f4b7a", "#dde2e8", "#5b6472", "#1b222c", "#b7791f", "#b3261e"
WIDTH, HEIGHT = 680, 150
LEFT, RIGHT, TOP, BOTTOM = 58, 62, 8, 18
NAMES = 6
"""At most so many buckets are named below their bars."""
METER = (150, 9)


def draw_chart(
    quantities: Sequence[int], names: Sequence[str], *, limit: int | None, number: Callable[[int], str]
) -> str:
    """A bar for each bucket, and a limit with the marks below it, as an address of the image."""
    plot_width, plot_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    top = max(1, *quantities, limit or 0) * 1.04
    step = plot_width / len(quantities)

    def y(value: float) -> float:
        return round(TOP + plot_height * (1 - max(0.0, value) / top), 1)

    shapes = []
    for value in _round_values(top):
        shapes += [_line(LEFT, WIDTH - RIGHT, y(value), PALE), _text(LEFT - 6, y(value) + 3, number(value), "end")]
    for place, quantity in enumerate(quantities):
        color = BLUE if limit is None or quantity <= limit else RED
        shapes.append(
            f'<rect x="{LEFT + step * (place + 0.12):.1f}" y="{y(quantity)}" width="{step * 0.76:.1f}" '
            f'height="{y(0) - y(quantity):.1f}" fill="{color}"/>'
        )
    every = -(-len(names) // NAMES)
    shapes += [
        _text(LEFT + step * (place + 0.5), HEIGHT - 4, names[place], "middle") for place in range(0, len(names), every)
    ]
    if limit:
        shapes += _marks(limit, y, spaced=limit > top / 3)
    return _address(WIDTH, HEIGHT, shapes)


def draw_meter(used: int, limit: int) -> str:
    """How much of a limit is used, with the marks on it, as an address of the image."""
    width, height = METER
    scale = (width - 1) / (max(used, limit, 1) * 1.02)
    reached = 100 if limit == 0 and used else used * 100 // limit if limit else 0
    color = RED if reached >= 100 else AMBER if reached >= MARKS[0] else BLUE
    shapes = [
        f'<rect x="0" y="1.5" width="{width}" height="{height - 3}" fill="{PALE}"/>',
        f'<rect x="0" y="1.5" width="{used * scale:.1f}" height="{height - 3}" fill="{color}"/>',
    ]
    for mark in MARKS:
        x = f"{limit * mark / 100 * scale:.1f}"
        thick = 1.4 if mark == 100 else 0.7
        shapes.append(f'<path d="M{x} 0V{height}" stroke="{INK}" stroke-width="{thick}"/>')
    return _address(width, height, shapes)


def _round_values(top: float) -> range:
    """Round values up to a height, two to five of them and 0: steps of 1, 2 or 5 times a power of ten."""
    power = 10 ** max(0, len(str(int(top))) - 1)
    candidates = (max(1, power * digit // 10) for digit in (2, 5, 10, 20, 50))
    step = next(candidate for candidate in candidates if top / candidate < 6)
    return range(0, int(top) + 1, step)


def _marks(limit: int, y: Callable[[float], float], *, spaced: bool) -> list[str]:
    """The limit's line and those below it. Their names stand in two columns, so that they do not touch."""
    shapes = []
    for place, mark in enumerate(MARKS if spaced else MARKS[-1:]):
        height, is_limit = y(limit * mark / 100), mark == 100
        color = RED if is_limit else AMBER
        shapes.append(_line(LEFT, WIDTH - RIGHT, height, color, dash="" if is_limit else "2 3"))
        x = WIDTH - RIGHT + 4 + 28 * (place % 2)
        shapes.append(_text(x, height + 3, f"{mark}\u00a0%", "start", color))
    return shapes


def _line(start: float, end: float, y: float, color: str, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path d="M{start} {y}H{end}" stroke="{color}" stroke-width="0.8"{dashed}/>'


def _text(x: float, y: float, text: str, anchor: str, color: str = GREY) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{escape(text)}</text>'


def _address(width: int, height: int, shapes: Sequence[str]) -> str:
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="Inter, Noto Sans CJK JP" font-size="8.5" fill="none">{"".join(shapes)}</svg>'
    )
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"
