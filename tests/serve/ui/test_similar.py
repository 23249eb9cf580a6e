"""Similar films: found beside the film, narrowed, compared side by side. On real Chromium, over a real index."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.indexed import rank, write_index
from tests.serve.ui.site import Site, find_violations, open_site, poll
from tests.support.models import make_bundle

FILMS = [encode_image(film) for film in make_films()[:16]]
SEARCH = "serve.search.enabled=true"
HITS = ".hits .hit button"


def index_films(site: Site) -> None:
    """Receives and indexes films, of which two follow each other for each patient."""
    for film in FILMS:
        site.upload(film)
    write_index(site.services.config, make_bundle(), FILMS)


@pytest.fixture
def site(browser: Browser, tmp_path: Path) -> Iterator[Site]:
    with open_site(browser, tmp_path, SEARCH) as site:
        index_films(site)
        yield site


def open_similar(site: Site, number: int) -> Page:
    image_id, _ = site.send(FILMS[number])
    page = site.open(f"/ui/studies/{image_id}?renderer=cpu")
    page.locator(".film-canvas[data-shown=true]").wait_for()
    page.keyboard.press("s")
    poll(lambda: page.locator(HITS).count(), "hits")
    return page


def test_similar_films_are_shown_narrowed_and_compared(site: Site) -> None:
    page = open_similar(site, 4)
    expected = [number for number in rank(make_bundle(), FILMS, FILMS[4]) if number not in (4, 5)][:12]
    poll(lambda: page.locator(HITS).count() == 12, "the nearest twelve")
    shown = page.locator(HITS).all_inner_texts()
    sexes = [("F", "M")[number // 2 % 2] for number in expected]
    assert [f", {sex}, " in text for sex, text in zip(sexes, shown, strict=True)] == [True] * 12
    poll(
        lambda: (
            page.evaluate("[...document.querySelectorAll('img.hit-thumbnail')].filter(i => i.naturalWidth).length") >= 4
        ),
        "the thumbnails in sight",
    )
    assert "Likeness is not a diagnosis." in page.inner_text(".similar")
    assert find_violations(page) == []
    page.locator(HITS).first.click()
    page.locator(".film-canvas[data-shown=true] >> nth=1").wait_for()
    assert page.locator(".prior-choice").inner_text().startswith("Similar film, distance ")
    assert find_violations(page) == []
    page.get_by_label("Sex").select_option("F")
    wanted = sum(number // 2 % 2 == 0 for number in range(16)) - 2  # without this patient's own
    poll(lambda: page.locator(HITS).count() == wanted, "women alone")
    page.get_by_label("Sex").select_option("")
    page.get_by_label("Narrow by words").fill("pacemaker")
    page.keyboard.press("Enter")
    poll(lambda: page.locator(".similar-fault").count(), "why nothing is searched")
    assert page.inner_text(".similar-fault") == "not in this model's vocabulary: pacemaker"
    assert page.locator(HITS).count() == 0, "what another search found is not there"
    assert find_violations(page) == []
    page.get_by_label("Narrow by words").fill("AP")
    page.keyboard.press("Enter")
    poll(lambda: page.locator(HITS).count() == 7, "AP alone")  # one of eight is of this patient
    page.get_by_role("button", name="Close").click()
    assert page.locator(".film-canvas").count() == 1


@pytest.mark.slow
def test_flags_alone_tell_no_findings(browser: Browser, tmp_path: Path) -> None:
    with open_site(browser, tmp_path, SEARCH, "serve.modes.flag_only=true") as site:
        index_films(site)
        page = open_similar(site, 4)
        said = page.inner_text(".similar")
        assert "Effusion" not in said and "Mass" not in said and "Label" not in said and "Routine" in said
        assert page.get_by_label("Finding", exact=True).count() == 0
        assert find_violations(page) == []


def test_without_an_index_the_page_says_so_and_without_search_there_is_no_tab(browser: Browser, tmp_path: Path) -> None:
    for folder, overrides in (("on", [SEARCH]), ("off", [])):
        (tmp_path / folder).mkdir()
        with open_site(browser, tmp_path / folder, *overrides) as site:
            image_id = site.upload(FILMS[0])
            page = site.open(f"/ui/studies/{image_id}?renderer=cpu")
            page.locator(".findings").wait_for()
            page.keyboard.press("s")
            if overrides:
                page.locator(".similar [role=alert]").wait_for()
                told = page.inner_text(".similar [role=alert]")
                assert told == "No search: version 1 of the model has no index: run `python -m pipelines.index`"
            else:
                assert page.get_by_role("button", name="Similar").count() == 0
