"""The queue in a real browser: order, filters, keyboard, refresh, sign-in."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.serve.support.forgery import encode_image, make_films
from tests.serve.ui.site import Site, open_site, poll, rows


def study_ids(site: Site, query: str = "reviewed=false") -> list[str]:
    """Returns the study IDs of the worklist, in the endpoint's own order."""
    page = site.open("/health/live", reader=None)
    reply = page.request.get(f"{site.url}/studies?{query}", headers={"X-API-Key": site.keys["rita"]})
    return [study["study_id"] for study in reply.json()["studies"]]


def add_studies(site: Site, count: int = 8) -> None:
    for number, film in enumerate(make_films()[:count]):
        split = ("train", "val", "test")[number % 3]
        site.upload(encode_image(film), 3.0 * number, study_id=f"study-{number}", split=split, age_years=50.0 + number)


def listed(text: str) -> str:
    found = re.search(r"study-\d+", text)
    assert found is not None, text
    return found[0]


def test_signs_in_shows_the_worklist_in_its_order_and_signs_out(site: Site) -> None:
    add_studies(site)
    page = site.open(reader=None)
    page.get_by_label("API key").fill("chestai_000000000000_wrong")
    page.keyboard.press("Enter")
    poll(lambda: "No such key" in page.inner_text("main"), "the refusal")
    page.get_by_label("API key").fill(site.keys["rita"])
    page.keyboard.press("Enter")
    poll(lambda: len(rows(page)) == 8, "eight rows")
    assert [listed(row) for row in rows(page)] == study_ids(site)
    assert "not a medical device" in page.inner_text("footer")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("API key").wait_for()
    assert page.context.cookies() == []


def test_filters_live_in_the_address(site: Site) -> None:
    add_studies(site)
    page = site.open()
    poll(lambda: len(rows(page)) == 8, "eight rows")
    page.get_by_label("Search by image, study, patient key or file name").fill("study-3")
    page.keyboard.press("Enter")
    poll(lambda: [listed(row) for row in rows(page)] == ["study-3"], "the study that was searched for")
    assert "search=study-3" in page.url
    page.reload()
    poll(lambda: [listed(row) for row in rows(page)] == ["study-3"], "the same after a reload")
    page.goto(f"{site.url}/ui/?split=val")
    poll(lambda: [listed(row) for row in rows(page)] == study_ids(site, "reviewed=false&split=val"), "one split")
    page.goto(f"{site.url}/ui/?search=nothing")
    poll(lambda: page.locator(".nothing").count() == 1 and not rows(page), "an empty queue says so")


def test_keyboard_walks_the_queue_and_opens_a_study(site: Site) -> None:
    add_studies(site)
    page, order = site.open(), study_ids(site)
    poll(lambda: len(rows(page)) == 8, "eight rows")
    for key in ("j", "j", "k"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    poll(lambda: "/ui/studies/" in page.url, "a study")
    poll(lambda: order[1] in page.inner_text("body"), "the second study of the queue")
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    assert all(label in dialog.inner_text() for label in ("Invert", "Agree with the rest", "Overlay on or off"))
    page.keyboard.press("Escape")
    page.go_back()
    poll(lambda: len(rows(page)) == 8, "the queue again")


@pytest.mark.slow
def test_new_studies_do_not_move_the_row_in_hand(site: Site) -> None:
    add_studies(site, 4)
    page = site.open()
    poll(lambda: len(rows(page)) == 4, "four rows")
    page.keyboard.press("j")
    chosen = page.locator("[role=row][aria-selected=true]")
    before, text = chosen.bounding_box(), chosen.inner_text()
    site.upload(encode_image(make_films()[20]), 1000.0, study_id="study-99")
    page.clock.install()
    page.clock.fast_forward(60_000)
    poll(lambda: page.locator(".news").inner_text() != "", "the news of a study")
    assert (chosen.bounding_box(), chosen.inner_text()) == (before, text)
    page.locator(".news button").first.click()
    poll(lambda: len(rows(page)) == 5 and "study-99" in rows(page)[0], "the overdue study on top")


def test_passive_mode_shows_no_numbers(browser: Browser, tmp_path: Path) -> None:
    with open_site(browser, tmp_path, "serve.modes.flag_only=true") as site:
        add_studies(site, 2)
        page = site.open()
        poll(lambda: len(rows(page)) == 2, "two rows")
        assert not re.search(r"0\.\d\d", " ".join(rows(page)))
