"""The banner of a metric: of its highest open alert, put away by people, back for what is newer or higher."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from plafond.models import Notice, NoticeSeverity
from plafond.services.notices import dismiss_notice
from plafond.services.texts import notice_text
from plafond.services.wording import LANGUAGES
from plafond.worker import do_due_work

from ..conftest import NOW, World
from .engine import open_till
from .helpers import ACTOR, account_of, emails, gauge, period_of, send
from .test_alert_thresholds import put


async def banners_of(world: World, name: str = "birchwood") -> list[Notice]:
    account = await account_of(world, name)
    async with world.database.read() as session:
        rows = await session.scalars(
            select(Notice)
            .where(Notice.account_id == account.id, Notice.code == "USAGE_THRESHOLD")
            .order_by(Notice.subject)
        )
        return list(rows)


async def banner_of(world: World, name: str = "birchwood") -> Notice:
    (banner,) = await banners_of(world, name)
    return banner


async def dismiss(world: World, banner: Notice) -> None:
    async with world.database.work(ACTOR) as work:
        await dismiss_notice(work, banner.account_id, banner.id)


async def test_it_speaks_of_the_highest_open_alert(world: World) -> None:
    steps = ((500, 80, "WARNING"), (5_000, 90, "WARNING"), (2_500, 95, "CRITICAL"), (9_000, 100, "CRITICAL"))
    ids = set()
    for n, (quantity, threshold, severity) in enumerate(steps):
        await send(world, emails(f"e{n}", quantity, account="birchwood"))
        banner = await banner_of(world)
        ids.add(banner.id)
        assert (banner.subject, banner.params["threshold"], banner.severity) == ("email_sends", threshold, severity)
        assert banner.dismissible
    assert len(ids) == 1
    assert banner.params == {
        "metric": "email_sends",
        "metricName": "Email sends",
        "threshold": 100,
        "level": "LIMIT_REACHED",
        "used": 56_500,
        "limit": 50_000,
        "raisedAt": "2026-11-25T07:00:00-05:00",
    }


async def test_what_is_below_a_warning_makes_none(world: World) -> None:
    await put(world, 10, 79)
    assert await banners_of(world) == []
    await send(world, emails("a", 500, account="birchwood"))
    assert (await banner_of(world)).params["threshold"] == 80
    await put(world)
    assert (await banner_of(world)).params["threshold"] == 80


async def test_each_metric_has_its_own(world: World) -> None:
    await send(world, emails("a", 500, account="birchwood"), gauge("b", "custom_domains", "birchwood", level=15))
    found = [(banner.subject, banner.severity) for banner in await banners_of(world)]
    assert found == [("custom_domains", NoticeSeverity.CRITICAL), ("email_sends", NoticeSeverity.WARNING)]


async def test_put_away_it_comes_back_for_a_higher_threshold_only(world: World) -> None:
    await send(world, emails("a", 5_500, account="birchwood"))
    await dismiss(world, await banner_of(world))
    await send(world, emails("b", 100, account="birchwood"))
    assert (await banner_of(world)).dismissed_at == NOW
    await send(world, emails("c", 2_500, account="birchwood"))
    banner = await banner_of(world)
    assert (banner.dismissed_at, banner.params["threshold"]) == (None, 95)


async def test_put_away_it_stays_away_as_a_gauge_falls(world: World) -> None:
    """Of 10 workspaces 7 are in use: 10, 9, 10, 3."""
    await send(world, gauge("a", "workspaces", quantity=3))
    await dismiss(world, await banner_of(world, "acme"))
    await send(world, gauge("b", "workspaces", quantity=-1))
    banner = await banner_of(world, "acme")
    assert (banner.params["threshold"], banner.dismissed_at) == (90, NOW)
    world.clock.stands_at += timedelta(minutes=1)
    await send(world, gauge("c", "workspaces", quantity=1))
    banner = await banner_of(world, "acme")
    assert (banner.params["threshold"], banner.dismissed_at) == (100, None)
    await send(world, gauge("d", "workspaces", quantity=-7))
    assert await banners_of(world, "acme") == []


async def test_it_goes_with_the_period_and_comes_anew_in_the_next(world: World) -> None:
    await dismiss(world, await banner_of(world, "calder"))
    period = await period_of(world, "calder")
    world.clock.stands_at = period.end - timedelta(minutes=1)
    await send(world, emails("ahead", 9_300, account="calder", occurred_at=period.end))
    assert (await banner_of(world, "calder")).params["threshold"] == 95
    world.clock.stands_at = period.end
    while await do_due_work(open_till(world.database)):
        pass
    banner = await banner_of(world, "calder")
    assert (banner.params["threshold"], banner.params["used"], banner.dismissed_at) == (90, 9_300, None)
    world.clock.stands_at = (await period_of(world, "calder")).end
    while await do_due_work(open_till(world.database)):
        pass
    assert await banners_of(world, "calder") == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("level", ["WARNING", "UPGRADE_SUGGESTION", "URGENT", "LIMIT_REACHED"])
def test_it_speaks_every_language(language: str, level: str) -> None:
    params: dict[str, Any] = {
        "metricName": "Email sends",
        "threshold": 150,
        "level": level,
        "used": 75_000,
        "limit": 50_000,
    }
    title, message = notice_text("USAGE_THRESHOLD", params, language)
    assert title.startswith("Email sends")
    assert "150" in title
    assert "{" not in title + message
    assert (language == "en") == ((title, message) == notice_text("USAGE_THRESHOLD", params))
