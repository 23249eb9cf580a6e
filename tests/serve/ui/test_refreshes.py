"""What an open page asks by itself: it keeps no session open, fills no audit, and stops where nobody looks."""

from collections import Counter
from datetime import timedelta

import pytest
from playwright.sync_api import Page
from sqlalchemy import select, update

from chestai.clock import now
from serve.db.models import AuditRow, SessionRow
from tests.serve.ui.site import Site, poll, rows

MINUTE_MS = 60_000


def open_queue(site: Site, path: str = "/ui/") -> tuple[Page, list[str]]:
    """Opens a page whose clock the test moves; returns the requests for lists and numbers from then on, too."""
    page = site.open("/health/live", reader=None)
    page.clock.install()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/studies" in request.url else None)
    page.goto(site.url + path)
    page.get_by_label("API key").fill(site.keys["rita"])
    page.keyboard.press("Enter")
    poll(lambda: len(rows(page)) == 2, "the queue")
    return page, asked


def wait(page: Page, asked: list[str], minutes: int) -> None:
    """Lets minutes pass on the page, one refresh after the other."""
    for _ in range(minutes * 4):
        expect(page, asked, len(asked) + 2, MINUTE_MS // 4)


def expect(page: Page, asked: list[str], count: int, wait_ms: int = 0) -> None:
    """Waits on the page's clock, and then for so many requests in all."""

    def is_reached() -> bool:
        page.wait_for_timeout(20)  # only in such a call does Playwright tell of requests
        return len(asked) >= count

    page.clock.run_for(wait_ms)
    poll(is_reached, f"{count} requests")


def last_use(site: Site, minutes_ago: float | None = None) -> float:
    """Returns the minutes since the session was used, as the endpoint knows it; sets them first."""
    with site.services.state.store.database.write_session() as session:
        if minutes_ago is not None:
            session.execute(update(SessionRow).values(last_seen_at=now() - timedelta(minutes=minutes_ago)))
        return (now() - session.scalars(select(SessionRow.last_seen_at)).one()).total_seconds() / 60


@pytest.mark.slow
def test_session_ends_although_a_queue_is_open(site: Site) -> None:
    site.upload_films(2)
    page, asked = open_queue(site)
    last_use(site, 20)
    wait(page, asked, 2)
    assert last_use(site) > 19
    page.keyboard.press("j")
    page.clock.run_for(MINUTE_MS)
    poll(lambda: last_use(site) < 1, "a key is a use of the session")
    last_use(site, 31)
    page.clock.run_for(MINUTE_MS // 4)
    page.get_by_label("API key").wait_for()
    assert "Your session has ended" in page.inner_text("main")


@pytest.mark.slow
def test_refreshes_have_one_row_in_the_audit(site: Site) -> None:
    site.upload_films(2)
    page, asked = open_queue(site)
    wait(page, asked, 3)
    assert len(asked) >= 2 * 12
    with site.services.state.store.database.read_session() as session:
        found = Counter(session.execute(select(AuditRow.action, AuditRow.detail)).tuples())
    mark = '{"minutes":10.0,"refresh":true}'
    assert {key: count for key, count in found.items() if key[0] in ("studies", "summary")} == {
        ("studies", "{}"): 1, ("summary", "{}"): 1, ("studies", mark): 1, ("summary", mark): 1,
    }  # fmt: skip


def test_tab_out_of_sight_asks_nothing(site: Site) -> None:
    site.upload_films(2)
    page, asked = open_queue(site)
    page.evaluate("Object.defineProperty(document, 'visibilityState', {value: 'hidden', configurable: true})")
    page.evaluate("window.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(300)
    asked.clear()
    page.clock.run_for(5 * MINUTE_MS)
    page.wait_for_timeout(300)
    assert asked == []
    page.evaluate("delete document.visibilityState")
    page.evaluate("window.dispatchEvent(new Event('visibilitychange'))")
    expect(page, asked, 2)
