"""Priors from the archive: a reader asks, sees that it is asked, and what came. On real Chromium; no gateway runs."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from serve.gateway.db.prior_requests import DONE, FAILED, finish_request
from tests.serve.support.films import add_film_row
from tests.serve.ui.site import Site, find_violations, open_site, poll
from tests.support.models import image

ARCHIVE = "gateway.priors={kind: dicom, address: '127.0.0.1:4242', ae_title: ARCHIVE}"
BUTTON = "Priors from the archive"


@pytest.fixture
def site(browser: Browser, tmp_path: Path) -> Iterator[Site]:
    with open_site(browser, tmp_path, ARCHIVE) as site:
        yield site


def read_status(page: Page) -> str:
    return page.locator(".archive [role=status]").inner_text()


def finish(site: Site, image_id: str, state: str, films: int, detail: str | None) -> None:
    with site.services.state.store.database.write_session() as session:
        finish_request(session, image_id, state, films, detail)


def test_a_reader_asks_the_archive_and_sees_what_came(site: Site) -> None:
    current = site.upload(image(8, 300, 240), patient_key="p1", studied_on=date(2024, 3, 1))
    page = site.open(f"/ui/studies/{current}?renderer=cpu")
    page.get_by_role("button", name="No prior").wait_for()
    button = page.get_by_role("button", name=BUTTON)
    assert button.count() == 0, "it is no film of the gateway"
    add_film_row(site.services.state.store.database, current)
    page.reload()
    button.focus()
    page.keyboard.press("Enter")
    poll(lambda: read_status(page) == "asking the archive…", "that it is asked")
    assert find_violations(page) == []
    page.keyboard.press("Enter")  # changes nothing, and the focus stays
    finish(site, current, FAILED, 0, "no association with ARCHIVE")
    poll(lambda: read_status(page) == "nothing came: no association with ARCHIVE", "why nothing came")
    page.keyboard.press("Enter")
    poll(lambda: read_status(page) == "asking the archive…", "that it is asked anew")
    site.upload(image(7, 300, 240), patient_key="p1", studied_on=date(2020, 1, 2), prior=True)
    finish(site, current, DONE, 1, "1 not shown: not frontal")
    poll(lambda: read_status(page) == "1 earlier film is here (1 not shown: not frontal)", "what came")
    page.get_by_role("button", name="Prior (1)").click()
    page.locator(".film-canvas[data-shown=true] >> nth=1").wait_for()
    assert str(page.locator(".prior-choice option").first.text_content()).startswith("2020-01-02")
    assert find_violations(page) == []
