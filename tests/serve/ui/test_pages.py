"""Every page and state: what axe finds, how little the queue loads, and what the operators' page shows."""

import gzip
import json

import pytest
from playwright.sync_api import Page

from serve.api.routes.ui import BUILT
from tests.serve.ui.site import Site, find_violations, poll, rows

SIZES = [(1440, 900), (390, 844)]
QUEUE_BYTES, VIEWER_BYTES = 120_000, 1_000_000  # of scripts, compressed


def set_theme(page: Page, theme: str) -> None:
    page.locator(".theme select").select_option(theme)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pages_are_accessible(site: Site, size: tuple[int, int]) -> None:
    """WCAG 2.2 AA by axe, in both themes; nothing is wider than the screen."""
    site.upload_films(3)
    page = site.open(reader=None, width=size[0], height=size[1])
    page.get_by_label("API key").wait_for()
    assert find_violations(page) == []
    page = site.open(reader="chief", width=size[0], height=size[1])
    poll(lambda: len(rows(page)) == 3, "the queue")
    for path, shown in (("/ui/", ".grid-body [role=row]"), ("/ui/operation", ".new-key"), ("/ui/nowhere", "h1")):
        page.goto(site.url + path)
        page.locator(shown).first.wait_for()
        for theme in ("light", "dark"):
            set_theme(page, theme)
            assert find_violations(page) == [], (path, theme)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0], path
    page.goto(f"{site.url}/ui/")
    page.locator(".grid-body [role=row]").first.wait_for()
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    assert find_violations(page) == []


def test_queue_loads_little_and_no_viewer(site: Site) -> None:
    site.upload_films(2)
    page = site.open(reader=None)
    loaded: list[str] = []
    page.on("response", lambda response: loaded.append(response.url))
    page.goto(f"{site.url}/ui/")
    page.get_by_label("API key").fill(site.keys["rita"])
    page.keyboard.press("Enter")
    poll(lambda: len(rows(page)) == 2, "the queue")
    scripts = {url.rsplit("/", 1)[-1] for url in loaded if url.endswith(".js")}
    assert scripts and sum(compressed_size(name) for name in scripts) <= QUEUE_BYTES
    chunks = json.loads((BUILT / "manifest.json").read_text())
    viewer = {chunk["file"].rsplit("/", 1)[-1] for name, chunk in chunks.items() if "src/viewer/" in name}
    assert viewer and not viewer & scripts
    assert max(map(compressed_size, viewer)) <= VIEWER_BYTES


def compressed_size(name: str) -> int:
    return len(gzip.compress((BUILT / "assets" / name).read_bytes()))


def test_operators_page_shows_state_and_manages_keys(site: Site) -> None:
    image_id = site.upload_films(1)[0]
    reviews = {"image_id": image_id, "verdicts": {"Mass": "FP", "Effusion": "TN"}}
    page = site.open("/ui/operation", reader="chief")
    header = {"X-API-Key": site.keys["rita"]}
    assert page.request.post(f"{site.url}/reviews", data=reviews, headers=header).status == 201
    page.reload()
    card = page.locator(".card")
    poll(lambda: "version 1" in card.first.inner_text(), "the health")
    poll(lambda: "50 %" in page.locator(".card", has_text="Agreement").inner_text(), "the agreement")
    page.get_by_role("button", name="Check the chain").click()
    poll(lambda: "rows are as they were written" in page.locator(".card", has_text="Audit").inner_text(), "the audit")
    page.get_by_role("textbox", name="Owner").fill("newcomer")
    page.get_by_label("Role").select_option("reader")
    page.get_by_role("button", name="Make a key").click()
    poll(lambda: "chestai_" in page.locator(".new-key").inner_text(), "the key, once")
    row = page.get_by_role("row", name="newcomer")
    row.get_by_role("button").click()
    row.get_by_role("button", name="for good").click()
    poll(lambda: row.count() == 0, "the end of the key")


def test_readers_see_no_keys(site: Site) -> None:
    page = site.open("/ui/operation")
    poll(lambda: page.locator(".card").count() >= 5, "the page")
    assert "API keys" not in page.inner_text("main") and "Audit" not in page.inner_text("main")
