"""What val says about a probability, in words beside it."""

import math

import pytest

from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.local import serve_version
from tests.serve.ui.site import Site, find_violations, poll
from tests.support.models import FINDINGS, add_confidence, make_bundle

FILM = encode_image(make_films()[0])


@pytest.mark.parametrize("width", [1440, 390])
def test_bands_and_label_sets_are_told_in_words(width: int, site: Site) -> None:
    bundle = add_confidence(make_bundle())
    assert bundle.confidence is not None
    serve_version(site.app, 1, bundle)
    image_id, reply = site.send(FILM)
    answer = reply.json()
    page = site.open(f"/ui/studies/{image_id}", width=width)
    poll(lambda: page.locator(".findings tbody tr").count() == len(FINDINGS), "the findings")
    shown = {row.locator("th").inner_text(): row.inner_text() for row in page.locator(".findings tbody tr").all()}
    for name, value in answer["probabilities"].items():
        band = bundle.confidence.confidence(name, value)
        text = " ".join(next(text for title, text in shown.items() if title.startswith(name)).split())
        if band is None:
            assert "no films scored like this" in text
        else:
            low, high = math.floor(100 * band.low), math.ceil(100 * band.high)
            assert f"{low} to {high} of 100 like this had it (n = {band.n})" in text
    assert page.locator(".bar-whisker").count() == sum(band is not None for band in answer["confidence"].values())
    assert "95 % interval" in page.inner_text(".findings-note")
    sets = page.locator(".label-sets")
    assert sets.locator("dl").is_hidden()
    sets.locator("summary").click()
    told = " ".join(sets.inner_text().split())
    assert told.startswith("Present, absent or both, at 90 %")
    for name, label_set in answer["label_sets"]["findings"].items():
        title = {"present": "Present", "absent": "Absent", "both": "Present or absent", "neither": "Neither"}[label_set]
        group = sets.locator("dl > div").filter(has=page.get_by_text(title, exact=True))
        assert name in group.locator("dd").inner_text()
    assert find_violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_film_of_a_version_without_confidence_shows_its_numbers_alone(site: Site) -> None:
    page = site.open(f"/ui/studies/{site.upload(FILM)}")
    poll(lambda: page.locator(".findings tbody tr").count() == len(FINDINGS), "the findings")
    assert page.locator(".finding-band, .bar-whisker, .label-sets").count() == 0
    assert "validation films" not in page.inner_text(".study-panel")
