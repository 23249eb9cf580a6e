"""What stands in place of the queue: a refused key, nothing to read, no such page, an endpoint that is away."""

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from tests.serve.support.forgery import encode_image, make_films
from tests.serve.ui.site import Site, find_violations, open_site, poll


def assert_accessible(page: Page, state: str) -> None:
    assert find_violations(page) == [], state
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), state


@pytest.mark.parametrize("width", [1440, 390])
def test_states_without_rows_are_accessible(width: int, site: Site) -> None:
    page = site.open(reader=None, width=width)
    page.get_by_label("API key").fill("chestai_000000000000_wrong")
    page.keyboard.press("Enter")
    poll(lambda: "No such key" in page.inner_text("main"), "the refusal")
    assert_accessible(page, "refused")
    page = site.open(width=width)
    poll(lambda: "All studies are read" in page.inner_text("main"), "an empty queue")
    assert_accessible(page, "empty")
    page.goto(f"{site.url}/ui/?split=nowhere")
    poll(lambda: "No study matches" in page.inner_text("main"), "a filter without studies")
    assert_accessible(page, "filtered")


def test_queue_that_cannot_be_read_says_so_and_comes_back(site: Site) -> None:
    page = site.open()
    page.context.set_offline(True)
    page.get_by_label("Read or unread").select_option("yes")
    poll(lambda: "does not answer" in page.inner_text("main"), "the failure")
    assert_accessible(page, "offline")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    poll(lambda: "No study matches" in page.inner_text("main"), "the queue again")


def test_film_that_was_not_scored_says_why(browser: Browser, tmp_path: Path) -> None:
    film, page_of_paper = make_films()[0], np.full((300, 240), 255, np.uint8)
    with open_site(browser, tmp_path, gate=True) as site:
        image_id, reply = site.send(encode_image(page_of_paper))
        assert reply.status_code == 422
        why = reply.json()["detail"].removeprefix("not scored: ")
        page = site.open(f"/ui/studies/{image_id}")
        poll(lambda: f"Not scored: {why}." in page.inner_text(".study-panel"), "the reason")
        assert "unlike" in why or "not like" in why, why
        assert_accessible(page, "not scored")
        page.goto(f"{site.url}/ui/studies/{site.upload(encode_image(film))}")
        poll(lambda: page.locator(".findings tbody tr").count(), "a film that was scored")
        assert "Not scored" not in page.inner_text(".study-panel")


def test_documentation_loads_from_the_endpoint_alone(site: Site) -> None:
    page = site.open("/docs", reader=None)
    poll(lambda: "The worklist" in page.inner_text("body"), "the routes")
