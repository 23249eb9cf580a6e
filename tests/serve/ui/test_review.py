"""Verdicts: by keyboard alone, saved once whatever the network does, and two readers on two studies."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route
from sqlalchemy import func, select

from serve.db.database import Database
from serve.db.models import AuditRow, ReviewRow
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.ui.site import Site, find_violations, open_site, poll
from tests.support.models import FINDINGS, image

STUDIES = 10
SHOWN = ".film-canvas[data-shown=true]"


def upload(site: Site, count: int) -> list[str]:
    """Uploads studies that the model calls positive for one finding; returns their IDs."""
    return [site.upload(image(20 + number), float(number), positives=("Mass",)) for number in range(count)]


def wait_for_study(page: Page, but: str = "") -> str:
    """Waits until another study's film is shown; returns its image ID."""

    def shown() -> str:
        image_id = page.url.split("?")[0].rsplit("/", 1)[-1]
        is_there = "/ui/studies/" in page.url and image_id != but and page.locator(SHOWN).count()
        return image_id if is_there else ""

    return str(poll(shown, "the film of a study"))


def verdicts(site: Site, image_id: str) -> dict[str, str]:
    """The newest verdict on each finding of a study."""
    return {row.finding: row.verdict for row in site.reviews() if row.image_id == image_id}


@pytest.fixture
def site_of_database(browser: Browser, database: Database, tmp_path: Path) -> Iterator[Site]:
    """A site on SQLite, and one on PostgreSQL."""
    with open_site(browser, tmp_path, f"state.url={database.url.render_as_string(False)}") as site:
        yield site


def test_ten_studies_by_keyboard_alone(site_of_database: Site, database: Database) -> None:
    site = site_of_database
    ids = set(upload(site, STUDIES))
    page, opened = site.open(), ""
    poll(lambda: page.locator(".grid-body [role=row]").count() == STUDIES, "the queue")
    page.keyboard.press("Enter")
    read = []
    for number in range(STUDIES):
        opened = wait_for_study(page, opened)
        read.append(opened)
        poll(lambda: page.locator(".findings tbody tr").count() == len(FINDINGS), "the findings")
        if number == 0:
            assert find_violations(page) == []
            for key in ("j", "d", "t", *"seen", "Escape"):  # the first finding is the positive one
                page.keyboard.press(key)
        page.keyboard.press("Enter")
    poll(lambda: "/ui/studies/" not in page.url, "the queue, after the last study")
    assert set(read) == ids, "each study once"
    poll(lambda: len(site.reviews()) == STUDIES * len(FINDINGS), "all verdicts")
    assert verdicts(site, read[0]) == {"Mass": "FP", "Effusion": "TN", "Pneumothorax": "TN"}
    assert verdicts(site, read[1]) == {"Mass": "TP", "Effusion": "TN", "Pneumothorax": "TN"}
    notes = {row.finding: row.notes for row in site.reviews() if row.image_id == read[0]}
    assert notes["Effusion"] == "seen", "the comment goes with what is given after it"
    assert {row.reviewer for row in site.reviews()} == {"rita"}
    with database.read_session() as session:
        assert session.scalar(select(func.count()).select_from(ReviewRow)) == STUDIES * len(FINDINGS)


def test_no_verdict_is_lost_and_none_counts_twice(site: Site) -> None:
    upload(site, 3)
    page = site.open()
    poll(lambda: page.locator(".grid-body [role=row]").count() == 3, "the queue")
    page.keyboard.press("Enter")
    first = wait_for_study(page)
    poll(lambda: page.locator(".findings tbody tr").count() == len(FINDINGS), "the findings")

    def lose_the_answer(route: Route) -> None:
        route.fetch()  # the endpoint has it, the page does not know
        route.abort()

    page.route("**/reviews", lose_the_answer)
    page.keyboard.press("Enter")
    second = wait_for_study(page, first)
    poll(lambda: page.locator(".findings tbody tr").count() == len(FINDINGS), "the findings")
    page.keyboard.press("Enter")
    wait_for_study(page, second)
    poll(lambda: "2 verdicts waiting" in page.inner_text(".outbox"), "what is waiting is said")
    page.reload()
    poll(lambda: "2 verdicts waiting" in page.inner_text(".outbox"), "the same after a reload")
    assert find_violations(page) == []
    page.unroute("**/reviews")
    poll(lambda: page.inner_text(".outbox") == "Saved", "all saved")
    found = Counter((row.image_id, row.finding) for row in site.reviews())
    assert found == {(image_id, finding): 1 for image_id in (first, second) for finding in FINDINGS}


def test_audit_has_the_view_of_a_film_that_was_fetched_ahead(site: Site) -> None:
    upload(site, 2)
    page = site.open()
    poll(lambda: page.locator(".grid-body [role=row]").count() == 2, "the queue")
    page.keyboard.press("Enter")
    first = wait_for_study(page)
    poll(lambda: len(views(site, first)) == 1 and len(views(site, but=first)) == 1, "the next one is fetched ahead")
    page.route("**/file", lambda route: route.abort())  # without `prefetch`: what says that the film is seen
    page.keyboard.press("n")
    second = wait_for_study(page, first)
    page.wait_for_timeout(1500)
    assert views(site, second) == ['{"prefetch":true}']
    page.unroute("**/file")
    poll(lambda: views(site, second) == ['{"prefetch":true}', "{}"], "the view, once the network is back")


def views(site: Site, image_id: str | None = None, but: str | None = None) -> list[str]:
    """What the audit says about each fetch of a film."""
    of_films = select(AuditRow.detail).where(AuditRow.action == "file").order_by(AuditRow.sequence)
    chosen = AuditRow.object == image_id if but is None else AuditRow.object != but
    with site.services.state.store.database.read_session() as session:
        return list(session.scalars(of_films.where(chosen)))


def test_what_the_endpoint_refuses_is_said(site: Site) -> None:
    page = site.open(f"/ui/studies/{upload(site, 1)[0]}")
    poll(lambda: page.locator(".findings tbody tr").count() == len(FINDINGS), "the findings")
    problem = '{"code": "unknown_finding", "detail": "no finding \'Mass\'"}'
    page.route("**/reviews", lambda route: route.fulfill(status=422, body=problem, content_type="application/json"))
    page.keyboard.press("a")
    alert = page.locator(".outbox [role=alert]")
    poll(alert.count, "the refusal")
    assert "Mass" in alert.inner_text() and "no finding" in alert.inner_text()
    assert (
        page.get_by_role("button", name="Agree: Mass, model says yes", exact=True).get_attribute("aria-pressed")
        == "false"
    )
    page.get_by_role("button", name="Discard").click()
    poll(lambda: alert.count() == 0, "it is gone")


def test_undo_takes_a_verdict_back_and_returns_to_its_study(site: Site) -> None:
    upload(site, 2)
    page = site.open()
    poll(lambda: page.locator(".grid-body [role=row]").count() == 2, "the queue")
    page.keyboard.press("Enter")
    first = wait_for_study(page)
    poll(lambda: page.locator(".findings tbody tr").count() == len(FINDINGS), "the findings")
    page.keyboard.press("c")
    poll(lambda: verdicts(site, first) == {"Mass": "unsure"}, "cannot say")
    page.keyboard.press("Enter")
    wait_for_study(page, first)
    page.keyboard.press("u")
    poll(lambda: first in page.url, "the study again")
    poll(lambda: set(verdicts(site, first).values()) == {"unsure", "withdrawn"}, "the last verdicts are taken back")


def test_two_readers_read_two_studies(site: Site) -> None:
    for minutes, film in enumerate(make_films()[:3]):
        site.upload(encode_image(film), float(minutes))
    pages = [site.open(reader=name) for name in ("rita", "omar")]
    rita, omar = pages
    for page in pages:
        page.locator(".grid-body [role=row] >> nth=2").wait_for()
    rita.keyboard.press("Enter")
    taken = wait_for_study(rita)
    poll(lambda: claimed_by(site, taken) == "rita", "the claim")
    omar.goto(f"{site.url}/ui/studies/{taken}")
    poll(lambda: omar.locator(".claimed").count(), "who is reading it")
    assert "rita is reading it" in omar.inner_text(".claimed")
    omar.get_by_role("button", name="Next study").first.click()
    other = wait_for_study(omar, taken)
    poll(lambda: claimed_by(site, other) == "omar", "the other study")
    assert claimed_by(site, taken) == "rita"
    rita.keyboard.press("q")
    poll(lambda: claimed_by(site, taken) is None, "released on leaving")


def claimed_by(site: Site, image_id: str) -> str | None:
    page = site.browser.contexts[0].pages[0]
    reply = page.request.get(f"{site.url}/studies?search={image_id}", headers={"X-API-Key": site.keys["chief"]})
    holder: str | None = reply.json()["studies"][0]["claimed_by"]
    return holder
