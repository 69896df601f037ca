"""Usage reports: all that is known stands on the page as text, also what the charts show."""

import re
from base64 import b64decode
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from lxml import etree
from pypdf.generic import DictionaryObject

from plafond.adapters.charts import MARKS, draw_chart, draw_meter
from plafond.adapters.drawing import write_page
from plafond.adapters.pdf import draw_document
from plafond.models import Granularity
from plafond.services.papers import ReportMetric, UsageReport
from plafond.services.wording import LANGUAGES, word

from . import papers
from .test_documents import LOCALES, OUR_FONTS, drawn, fonts_of, hostile, listening, read, squeeze, text_of

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file.*sRGB2014.icc:ResourceWarning")


def shapes_of(address: str) -> Any:
    """The chart in an address of an image."""
    return etree.fromstring(b64decode(address.removeprefix("data:image/svg+xml;base64,")))


def spoken_of(pdf: bytes) -> list[str]:
    """What a reader for the blind says of each picture."""
    found, waiting = [], [read(pdf).root_object["/StructTreeRoot"].get_object()]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, DictionaryObject):
            continue
        if node.get("/S") == "/Figure":
            found.append(str(node["/Alt"]))
        below = node.get("/K", [])
        below = below.get_object() if hasattr(below, "get_object") else below
        waiting += [child.get_object() for child in (below if isinstance(below, list) else [below])]
    return found


def test_a_report_shows_all_that_it_holds() -> None:
    report = papers.usage_report()
    text = squeeze(text_of(drawn("usage_report")))
    shown = ["Nutzungsbericht", "Müller Versand", "Müller & Söhne OHG", "Plafond GmbH", "1.–30. Nov. 2026"]
    shown += ["Europe/Berlin", "28. November 2026", *(metric.name for metric in report.metrics)]
    shown += [
        "15. Okt. – 14. Nov. 2026",
        "52.310",
        "104,62 %",
        "2.310",
        "15. Nov. – 14. Dez. 2026, läuft noch",
        "92,2 %",
    ]
    shown += [f"{sum(report.metrics[0].quantities):,}".replace(",", "."), "106,66 %", "16 (22. Nov.)", "unbegrenzt"]
    shown += [word("de", "nothing_used"), word("de", "report_note"), word("de", "report_limits")]
    assert [part for part in shown if squeeze(part) not in text] == []


def test_what_a_chart_shows_is_told_to_who_cannot_see_it() -> None:
    spoken = spoken_of(drawn("usage_report"))
    charts = [each for each in spoken if ";" in each]
    assert sorted(charts) == sorted(
        [
            "Email sends, Nutzung nach Tagen; Genutzt: 39.593; Höchstwert: 2.557 (4. Nov.)",
            (
                "Team members, Stand am Ende jedes Tages; Stand am Ende: 16; Limit: 15; Anteil: 106,66\u00a0%; "
                "Über dem Limit: 1; Höchstwert: 16 (22. Nov.)"
            ),
            "Workspaces, Stand am Ende jedes Tages; Stand am Ende: 4; Limit: unbegrenzt; Höchstwert: 4 (1. Nov.)",
        ]
    )
    assert all(spoken)


@pytest.mark.parametrize("language", LANGUAGES)
def test_reports_speak_every_language(language: str) -> None:
    report = papers.usage_report(language, LOCALES[language])
    pdf = draw_document(report.model_dump_json())
    text = squeeze(text_of(pdf))
    keys = ["usage_report", "made_for", "account", "time_zone", "used_by_day", "level_by_day", "used", "level", "limit"]
    keys += ["unlimited", "share", "above_limit", "peak", "usage_period", "nothing_used", "report_note"]
    assert [key for key in keys if squeeze(word(language, key)) not in text] == []
    assert fonts_of(pdf) <= OUR_FONTS


@pytest.mark.parametrize("granularity", list(Granularity))
def test_a_report_by_each_width_of_bucket(granularity: Granularity) -> None:
    first = datetime(2026, 10, 25, tzinfo=ZoneInfo("Europe/Berlin"))
    starts = tuple(
        (first.astimezone(ZoneInfo("UTC")) + timedelta(hours=hour)).astimezone(first.tzinfo) for hour in range(192)
    )
    metric = ReportMetric(name="Email sends", unit="email", is_gauge=False, quantities=tuple(range(192)), limit=None)
    report = papers.usage_report(starts=starts, granularity=granularity, metrics=(metric,))
    assert len(read(draw_document(report.model_dump_json())).pages) == 1


def test_a_report_without_buckets_says_that_nothing_was_used() -> None:
    metrics = tuple(metric.model_copy(update={"quantities": ()}) for metric in papers.usage_report().metrics)
    text = text_of(draw_document(papers.usage_report(starts=(), metrics=metrics).model_dump_json()))
    assert text.count(word("de", "nothing_used")) == len(metrics)


def test_what_a_report_holds_is_only_text() -> None:
    with listening() as (port, was_called):
        texts = hostile(port)
        metric = ReportMetric(name=" ".join(texts[:3]), unit=texts[3], is_gauge=True, quantities=(1, 2), limit=3)
        report = papers.usage_report(
            starts=papers.usage_report().starts[:2], metrics=(metric,), account_name=texts[4], footer=texts[5]
        )
        text = squeeze(text_of(draw_document(report.model_dump_json())))
        assert not was_called()
    assert [each for each in texts[:6] if squeeze(each) not in text] == []


# Charts


def show(number: int) -> str:
    return f"{number:,}"


def bars_of(address: str) -> list[Any]:
    return [shape for shape in shapes_of(address) if shape.tag.endswith("rect")]


def test_a_chart_has_a_bar_for_each_bucket_in_proportion() -> None:
    chart = draw_chart([10, 0, 5, -3], ["a", "b", "c", "d"], limit=None, number=show)
    heights = [float(bar.get("height")) for bar in bars_of(chart)]
    assert heights[0] == pytest.approx(2 * heights[2], abs=0.2)
    assert heights[1] == heights[3] == 0


def test_a_limit_has_its_line_and_its_marks() -> None:
    chart = shapes_of(draw_chart([40, 101], ["a", "b"], limit=100, number=show))
    texts = [shape.text for shape in chart if shape.tag.endswith("text")]
    assert [text for text in texts if "%" in text] == [f"{mark}\u00a0%" for mark in MARKS]
    colors = [bar.get("fill") for bar in chart if bar.tag.endswith("rect")]
    assert colors[0] != colors[1], "what is above the limit stands out"
    places = [float(shape.get("y")) for shape in chart if shape.tag.endswith("text") and "%" in shape.text]
    assert places == sorted(places, reverse=True)


def test_a_limit_far_below_keeps_its_marks_apart() -> None:
    chart = shapes_of(draw_chart([1_000], ["a"], limit=10, number=show))
    assert [shape.text for shape in chart if shape.tag.endswith("text") and "%" in shape.text] == ["100\u00a0%"]


@pytest.mark.parametrize("top", [1, 2, 3, 7, 10, 19, 99, 100, 101, 12_345, 10**12, 2**53 - 1])
def test_the_values_beside_a_chart_are_round_and_few(top: int) -> None:
    chart = shapes_of(draw_chart([top], ["a"], limit=None, number=str))
    values = [shape.text for shape in chart if shape.tag.endswith("text") and shape.get("text-anchor") == "end"]
    assert 2 <= len(values) <= 7
    assert values[0] == "0"
    assert all(re.fullmatch(r"0|[1-9]\d?0*", value) for value in values)


def test_names_below_a_chart_are_few() -> None:
    chart = shapes_of(draw_chart(range(100), [f"n{place}" for place in range(100)], limit=None, number=show))
    names = [shape.text for shape in chart if shape.tag.endswith("text") and shape.text.startswith("n")]
    assert 3 <= len(names) <= 6
    assert names[0] == "n0"


@pytest.mark.parametrize(("used", "limit"), [(0, 0), (5, 0), (0, 10), (80, 100), (100, 100), (10**12, 1)])
def test_a_meter_stays_within_its_frame(used: int, limit: int) -> None:
    meter = shapes_of(draw_meter(used, limit))
    width = float(meter.get("width"))
    assert all(0 <= float(bar.get("width")) <= width for bar in bars_of(draw_meter(used, limit)))


def test_texts_of_a_page_are_escaped() -> None:
    report: UsageReport = papers.usage_report(account_name="<b>&")
    assert "&lt;b&gt;&amp;" in write_page(report)
