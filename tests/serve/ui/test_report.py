"""The draft of the impression beside the findings: opened, in another language, copied; hidden where findings are."""

from datetime import date
from pathlib import Path

from playwright.sync_api import Browser, Page
from sqlalchemy import func, select

from serve.db.models import AuditRow
from tests.serve.ui.site import Site, find_violations, open_site, poll
from tests.support.models import image

SUMMARY = "Impression: draft by research software"
ENGLISH, SPANISH = "Draft by research software, not a diagnosis.", "Borrador de un programa de investigación"


def read_text(page: Page) -> str:
    text = page.locator(".report-text")
    return text.inner_text() if text.count() else ""


def count_asked(site: Site) -> int:
    """How often a draft was asked for."""
    with site.services.state.store.database.read_session() as session:
        return session.scalar(select(func.count()).select_from(AuditRow).where(AuditRow.action == "report")) or 0


def test_a_reader_opens_a_draft_and_copies_it_in_another_language(site: Site) -> None:
    older = site.upload(image(9, 300, 240), patient_key="p1", studied_on=date(2020, 1, 2))
    current = site.upload(image(8, 300, 240), patient_key="p1", studied_on=date(2024, 3, 1))
    page = site.open(f"/ui/studies/{current}?renderer=cpu")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    summary = page.get_by_text(SUMMARY)
    summary.wait_for()
    assert count_asked(site) == 0, "nobody has looked at it yet"
    summary.focus()
    page.keyboard.press("Enter")
    poll(lambda: read_text(page).startswith(ENGLISH), "the draft")
    assert "earlier film" in page.locator(".report").inner_text() and find_violations(page) == []
    page.get_by_label("Language").select_option("es")
    poll(lambda: read_text(page).startswith(SPANISH), "the draft in Spanish")
    assert page.locator(".report-text").get_attribute("lang") == "es" and count_asked(site) == 2
    page.get_by_role("button", name="Copy").click()
    poll(lambda: "Copied" in page.locator(".report-actions").inner_text(), "that it is copied")
    assert page.evaluate("() => navigator.clipboard.readText()") == read_text(page)
    page.goto(f"{site.url}/ui/studies/{older}?renderer=cpu")
    poll(lambda: read_text(page).startswith(SPANISH), "the next study's draft, open and in the same language")
    assert "earlier film" not in page.locator(".report").inner_text()


def test_a_draft_that_fails_can_be_asked_for_again(site: Site) -> None:
    page = site.open(f"/ui/studies/{site.upload(image(8))}?renderer=cpu")
    problem = '{"code": "unknown_language", "detail": "no language"}'
    page.route("**/report**", lambda route: route.fulfill(status=422, body=problem, content_type="application/json"))
    page.get_by_text(SUMMARY).click()
    again = page.get_by_role("button", name="Try again")
    again.wait_for()
    assert "No draft: no language" in page.locator(".report [role=alert]").inner_text()
    page.unroute("**/report**")
    again.click()
    poll(lambda: read_text(page).startswith(ENGLISH), "the draft")


def test_hidden_findings_have_no_draft(browser: Browser, tmp_path: Path) -> None:
    with open_site(browser, tmp_path, "serve.modes.flag_only=true") as site:
        page = site.open(f"/ui/studies/{site.upload(image(8))}?renderer=cpu")
        page.get_by_text("This endpoint shows flags alone").wait_for()
        assert page.locator(".report").count() == 0 and count_asked(site) == 0
