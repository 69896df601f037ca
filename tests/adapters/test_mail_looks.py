"""Mails in a browser: every kind, in every language, as wide as a phone; and nothing of them is fetched."""

import hashlib
import html
import json
import re
from pathlib import Path

import pytest

from plafond.adapters.mime import write_html
from plafond.models import MailKind
from plafond.services.letters import Letter

from ..conftest import Client, World
from ..stories.every_mail import live_through_every_kind
from .browser import dump_page, find_browser
from .letters import SAMPLES
from .make_mail_samples import PAGE, read_signature, source_of, source_of_page

PHONE = 360
MEASURE = """<script>addEventListener("load", () => {
const found = [...document.querySelectorAll("iframe")].map(frame => {
  const page = frame.contentDocument, root = page.documentElement;
  return {width: root.scrollWidth, shown: frame.clientWidth, text: page.body.innerText.length,
    title: page.title, heading: page.querySelector("h1").innerText, fetched: frame.contentWindow.performance
      .getEntriesByType("resource").length, links: [...page.links].map(link => link.getBoundingClientRect().height)};
});
document.body.textContent = JSON.stringify(found);
});</script>"""


def measure(browser: str, folder: Path, letters: list[Letter]) -> list[dict[str, object]]:
    """Each mail laid out in a frame as wide as a phone, all on one page, measured by that page's script."""
    frames = "".join(
        f'<iframe style="width:{PHONE}px;height:900px;border:0" srcdoc="{html.escape(write_html(letter))}"></iframe>'
        for letter in letters
    )
    page = folder / "all.html"
    page.write_text(f"<!doctype html><html><head><meta charset=utf-8>{MEASURE}</head><body>{frames}</body></html>")
    shown = dump_page(browser, page)
    told = re.search(r"<body[^>]*>(.*)</body>", shown, re.DOTALL)
    assert told is not None
    found: list[dict[str, object]] = json.loads(html.unescape(told.group(1)))
    return found


def check_layout(found: list[dict[str, object]], letters: list[Letter]) -> None:
    """Nothing is wider than the phone, all is there, links are large enough for a thumb, and nothing was fetched."""
    assert len(found) == len(letters)
    for mail, letter in zip(found, letters, strict=True):
        assert mail["shown"] == PHONE
        assert mail["width"] == PHONE, (letter.subject, mail)
        assert mail["fetched"] == 0
        assert mail["title"] == mail["heading"] == letter.subject
        assert isinstance(mail["text"], int)
        assert mail["text"] > sum(map(len, letter.paragraphs))
        assert isinstance(mail["links"], list)
        assert mail["links"][0] >= 40


def check_source(letter: Letter) -> None:
    """No script, no picture, no style or font from elsewhere."""
    source = write_html(letter).lower()
    for wanted in ("<script", "<img", "<link", "<style", "<iframe", "<object", "<form", "src=", "url(", "@import"):
        assert wanted not in source, wanted
    assert re.search(r"<[^>]*\son[a-z]+=", source) is None


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_mail_has_nothing_of_elsewhere(name: str) -> None:
    check_source(SAMPLES[name])


@pytest.mark.parametrize("name", [*sorted(SAMPLES), PAGE])
def test_the_pictures_are_of_what_there_is(name: str) -> None:
    """Otherwise: `.venv/bin/python -m tests.adapters.make_mail_samples`."""
    picture = Path("docs/samples", name)
    source = source_of_page() if name == PAGE else source_of(SAMPLES[name])
    assert read_signature(picture) == hashlib.sha256(source.encode()).hexdigest()
    assert picture.stat().st_size < 150_000


def test_no_picture_is_left_over() -> None:
    assert {path.name for path in Path("docs/samples").glob("mail-*")} == {*SAMPLES, PAGE}


@pytest.mark.slow
@pytest.mark.parametrize("locale", ["en", "de", "fr", "es", "nl", "ja"])
async def test_every_kind_fits_a_phone(client: Client, world: World, tmp_path: Path, locale: str) -> None:
    if not world.database.is_sqlite:
        pytest.skip("what mails look like is no matter of the database")
    browser = find_browser()
    told = await live_through_every_kind(client, world, locale)
    assert {kind for kind, _ in told} == set(MailKind)
    letters = [letter for _, letter in told]
    assert {letter.language for letter in letters} == {locale}
    for letter in letters:
        check_source(letter)
    check_layout(measure(browser, tmp_path, letters), letters)


@pytest.mark.slow
def test_a_word_without_end_is_broken(tmp_path: Path) -> None:
    letter = SAMPLES["mail-usage-alert-en.png"]
    long = "x" * 300
    letters = [
        type(letter)(**{**vars(letter), "subject": long, "paragraphs": (long,), "facts": ((long, long),), "why": long})
    ]
    check_layout(measure(find_browser(), tmp_path, letters), letters)
