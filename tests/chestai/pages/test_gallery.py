"""The gallery of urgent cases: order, safety, whose maps it shows, size, odd cases, and how a real browser shows it."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape, unescape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from chestai.imaging.heatmap import heatmap, overlay
from chestai.imaging.preprocess import Grey
from chestai.labels.findings import NIH14
from chestai.notice import RESEARCH_USE
from chestai.pages.gallery import MAP_SIDE, SIDE, GalleryImage, render_gallery, shrink
from chestai.pages.page import DASH
from chestai.phantom import draw, plan
from chestai.triage.rule import TriageRule
from tests.support.browser import Browser

RULE = TriageRule({"Pneumothorax": 1.0, "Mass": 0.7, "Effusion": 0.6})
FACTS = {"Model": "chestai version 3", "Snapshot": "2b2cc2b647f6", "Scored": "2026-01-02 13:05 UTC"}
HOSTILE = "<script>alert('1')</script>\"><img src=https://evil.example/x.png>/</style></main>.png"


def case(
    image_id: str,
    probabilities: Mapping[str, float],
    thresholds: Mapping[str, float | None],
    grey: Grey,
    maps: Sequence[str] = (),
    seed: int = 0,
) -> GalleryImage:
    """A case under `RULE`; findings that are not named have a probability of 0.01. maps: of which findings."""
    rng = np.random.default_rng(seed)
    known = {**dict.fromkeys(RULE.weights, 0.01), **probabilities}
    values, findings = [float(np.nan_to_num(value)) for value in known.values()], list(known)
    score = float(RULE.score([values], findings)[0])
    drawn = {one: heatmap(rng.normal(size=(7, 7)).astype(np.float32), *grey.shape) for one in maps}
    return GalleryImage(
        image_id, RULE.bucket(score), score, RULE.drivers(values, findings), known, thresholds, grey, drawn
    )


def flat(height: int = 40, width: int = 30) -> Grey:
    return np.full((height, width), 128, np.uint8)


def page(cases: Sequence[GalleryImage], images: bool = False, model: bool = False) -> str:
    return render_gallery(cases, "Most urgent cases", FACTS, synthetic_images=images, synthetic_model=model)


def text_of(html: str) -> str:
    """What a reader sees, on one line."""
    body = re.sub(r"<style>.*?</style>", "", html, flags=re.S)
    return unescape(" ".join(re.sub(r"<[^>]*>", " ", body).split()))


def articles(html: str) -> list[str]:
    return re.findall(r"<article.*?</article>", html, flags=re.S)


def maps_of(article: str) -> list[str]:
    """The names below the pictures that follow the image itself."""
    return re.findall(r"<figcaption>([^<]*)</figcaption>", article)[1:]


def decoded(html: str, kind: str) -> list[np.ndarray]:
    """The embedded pictures of a kind, `jpeg` or `png`, with their transparency where they have one."""
    found = re.findall(rf'href="data:image/{kind};base64,([^"]+)"', html)
    images = [cv2.imdecode(np.frombuffer(base64.b64decode(one), np.uint8), cv2.IMREAD_UNCHANGED) for one in found]
    assert all(image is not None for image in images)
    return [np.asarray(image) for image in images]


@pytest.fixture(scope="module")
def phantoms() -> list[GalleryImage]:
    """50 cases of 10 phantoms in three shapes; each of 14 findings reaches its operating point and has a map."""
    films = [image for image in plan(40, 420, 3) if image.findings][:10]
    drawn = [draw(film)[0] for film in films]
    shapes = (slice(0, 420), slice(0, 420)), (slice(0, 420), slice(60, 360)), (slice(0, 300), slice(0, 420))
    cases = []
    for at in range(50):
        film, grey = films[at % 10], np.ascontiguousarray(drawn[at % 10][shapes[at % 3]])
        probabilities = {one: 0.9 - 0.01 * at if one in film.findings else 0.1 for one in NIH14}
        cases.append(case(f"{at}/{film.image_id}", probabilities, dict.fromkeys(NIH14, 0.05), grey, NIH14, at))
    return cases


@pytest.fixture(scope="module")
def html(phantoms: list[GalleryImage]) -> str:
    return page([*phantoms[:5], replace(phantoms[5], image_id=HOSTILE)], images=True)


def test_the_most_urgent_comes_first_in_table_and_cases() -> None:
    scores = {"c": 0.3, "b": 0.9, "d": 0.9, "a": 0.6}
    html = page([case(name, {"Pneumothorax": score}, {}, flat()) for name, score in scores.items()])
    rows = re.findall(r'<td class="name"><a href="#(case-\d)"><bdi>(\w)</bdi></a></td>', html)
    assert rows == [("case-1", "b"), ("case-2", "d"), ("case-3", "a"), ("case-4", "c")]
    headings = re.findall(
        r'<article class="card case" id="(case-\d)".*?<h3[^>]*>\d\. <bdi>(\w)</bdi>', html, flags=re.S
    )
    assert headings == rows
    seen = text_of(html)
    assert "4 cases, most urgent first: 2 urgent, 1 soon, 1 routine" in seen
    assert "1 b urgent 0.900 Pneumothorax 0.90, Mass 0.01, Effusion 0.01 2 d urgent" in seen


def test_the_page_says_what_made_it_and_what_it_is_for() -> None:
    seen = text_of(page([]))
    assert "Model chestai version 3 Snapshot 2b2cc2b647f6 Scored 2026-01-02 13:05 UTC" in seen
    assert seen.count(RESEARCH_USE) == 2


def test_synthetic_images_and_models_are_marked() -> None:
    assert "SYNTHETIC" not in page([])
    assert "SYNTHETIC: computer-drawn phantoms, no X-rays" in page([], images=True)
    assert "SYNTHETIC: computer-drawn phantoms, no X-rays" in page([], images=True, model=True)
    assert "SYNTHETIC: the model learnt from computer-drawn phantoms" in page([], model=True)


def test_the_page_loads_nothing_and_escapes_names(html: str) -> None:
    assert escape(HOSTILE).replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in html
    for forbidden in ("<script", "<link", "<iframe", "@import", "url(", "onerror"):
        assert forbidden not in html.lower()
    assert html.count("</style>") == html.count("</main>") == 1
    written = html.replace(escape(HOSTILE).replace("&quot;", "&#34;").replace("&#x27;", "&#39;"), "")
    assert "://" not in written
    assert set(re.findall(r'(?:src|srcset|href|data|poster)="(#|data:|[^"]{1,20})', written)) == {"#", "data:"}
    odd = page([case("a", {"<b>x</b>": 0.9}, {"<b>x</b>": 0.5}, flat(), ["<b>x</b>"])])
    assert "<b>x" not in odd and "&lt;b&gt;x" in odd


def test_a_name_that_is_no_text_can_be_written() -> None:
    html = page([case("a\udcff.png", {}, {}, flat())])
    assert b"a?.png" in html.encode()


def test_every_link_leads_somewhere_and_every_id_is_one(html: str) -> None:
    anchors = re.findall(r'\bid="([^"]+)"', html)
    assert len(anchors) == len(set(anchors)) >= 6 * 3
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(anchors)
    twins = page([case("same.png", {}, {}, flat()) for _ in range(2)])
    assert 'id="case-1"' in twins and 'id="case-2"' in twins


def test_a_map_is_shown_only_where_its_finding_reaches_its_operating_point() -> None:
    probabilities = {"Mass": 0.49, "Effusion": 0.5, "Nodule": 0.9, "Edema": 0.9, "Fibrosis": 0.7, "Hernia": np.nan}
    thresholds = {"Mass": 0.5, "Effusion": 0.5, "Nodule": None, "Edema": np.nan, "Fibrosis": 0.5, "Hernia": 0.5}
    (article,) = articles(page([case("a", probabilities, thresholds, flat(), list(probabilities))]))
    assert maps_of(article) == ["Fibrosis 0.700", "Effusion 0.500"]
    rows = re.findall(r"<tr( class=\"reached\")?><th scope=\"row\">(\w+)</th>.*?<td>([^<]*)</td></tr>", article)
    assert rows[:4] == [
        (' class="reached"', "Fibrosis", "yes"),
        (' class="reached"', "Effusion", "yes"),
        ("", "Nodule", DASH),
        ("", "Edema", DASH),
    ]
    assert rows[4:] == [("", "Mass", "no"), ("", "Pneumothorax", DASH), ("", "Hernia", "no")]
    assert "nan" not in text_of(article).lower().split()


def test_a_finding_that_is_reached_without_a_map_has_only_its_row() -> None:
    (article,) = articles(page([case("a", {"Mass": 0.9}, {"Mass": 0.5}, flat())]))
    assert maps_of(article) == [] and article.count('class="reached"') == 1


def test_a_map_over_its_image_looks_as_the_endpoint_draws_it() -> None:
    grey = np.random.default_rng(1).integers(90, 160, (MAP_SIDE, MAP_SIDE // 2)).astype(np.uint8)
    given = case("a", {"Mass": 0.9}, {"Mass": 0.5}, grey, ["Mass"])
    (painted,) = decoded(page([given]), "png")
    assert painted.shape == (*grey.shape, 4)
    alpha = painted[..., 3:].astype(float) / 255
    blended = grey[..., None] * (1 - alpha) + painted[..., :3] * alpha
    reference = cv2.imdecode(np.frombuffer(overlay(grey, given.maps["Mass"]), np.uint8), cv2.IMREAD_COLOR)
    assert reference is not None and np.abs(blended - reference).max() < 4
    assert np.abs(reference.astype(float) - grey[..., None]).max() > 40, "or the comparison says nothing"


@pytest.mark.parametrize("shape", [(1, 1), (384, 384), (385, 200), (900, 2000), (3000, 2), (1, 5000)])
def test_images_are_shrunk_and_keep_their_shape(shape: tuple[int, int]) -> None:
    given = case("a", {"Mass": 0.9}, {"Mass": 0.5}, flat(*shape), ["Mass"])
    html = page([given])
    (image,), (painted,) = decoded(html, "jpeg"), decoded(html, "png")
    assert image.shape == shrink(given.grey).shape and image.shape == (shape if max(shape) <= SIDE else image.shape)
    assert max(image.shape) <= SIDE and max(painted.shape[:2]) <= MAP_SIDE
    height, width = (side * min(1, SIDE / max(shape)) for side in shape)
    assert abs(image.shape[0] - height) <= 1 and abs(image.shape[1] - width) <= 1


def test_fifty_cases_with_all_their_maps_stay_under_8_mb(phantoms: list[GalleryImage]) -> None:
    html = page(phantoms)
    assert len(decoded(html, "jpeg")) == 50 and len(decoded(html, "png")) == 50 * 14
    assert len(html.encode()) < 8_000_000


def test_no_case_at_all_is_a_page_too() -> None:
    html = page([])
    assert "No case" in text_of(html) and "There is no case to show." in text_of(html)
    assert "<article" not in html and "<table" not in html


def test_the_order_given_does_not_matter(phantoms: list[GalleryImage]) -> None:
    some = phantoms[:3]
    assert page(some) == page(some[::-1])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"score": float("nan")}, "score nan of 'a'"),
        ({"score": 1.2}, "score 1.2 of 'a'"),
        ({"grey": np.zeros((4, 4, 3), np.uint8)}, r"image 'a' is uint8 \(4, 4, 3\)"),
        ({"grey": np.zeros((4, 4), np.float32)}, r"image 'a' is float32 \(4, 4\)"),
        ({"grey": np.zeros((0, 4), np.uint8)}, r"image 'a' is uint8 \(0, 4\)"),
        ({"maps": {"Mass": np.zeros((3, 3), np.float32)}}, r"map of Mass is \(3, 3\), its image 'a' \(40, 30\)"),
        ({"maps": {"Mass": np.full((40, 30), 1.5, np.float32)}}, r"map of Mass on 'a' has values outside \[0, 1\]"),
        ({"maps": {"Mass": np.full((40, 30), np.nan, np.float32)}}, r"map of Mass on 'a' has values outside \[0, 1\]"),
    ],
)
def test_what_cannot_be_shown_is_refused(change: dict[str, Any], complaint: str) -> None:
    good = case("a", {"Mass": 0.9}, {"Mass": 0.5}, flat())
    page([good])
    with pytest.raises(ValueError, match=complaint):
        page([replace(good, **change)])


PROBE = """<iframe style="width:1280px;height:900px;border:0" srcdoc="{page}"></iframe>
<iframe style="width:390px;height:900px;border:0" srcdoc="{page}"></iframe>
<script>addEventListener("load", () => {{
const look = frame => {{
  const page = frame.contentDocument;
  const wide = node => node.scrollWidth > node.clientWidth;
  const cards = [page.documentElement, ...page.querySelectorAll(".card")].filter(wide);
  const small = [...page.querySelectorAll("svg")].filter(svg => svg.getBoundingClientRect().width < 60);
  return [page.documentElement.clientWidth, cards.length, small.length].join();
}};
document.documentElement.dataset.seen = [...document.querySelectorAll("iframe")].map(look).join(";");
}})</script>"""


def test_no_line_is_too_wide_for_a_browser(html: str, tmp_path: Path) -> None:
    browser = Browser.find(tmp_path / "profile")  # in frames: Chromium's own window has at least 500 pixels
    path = tmp_path / "page.html"
    bad = '<p class="card" style="width:300px"><svg style="width:9px"></svg><b>' + "x" * 999 + "</b></p>"
    for text, expected in ((html, "1280,0,0;390,0,0"), (html.replace("</main>", f"{bad}</main>"), "1280,1,1;390,1,1")):
        path.write_text(PROBE.format(page=escape(text)))
        answer = re.search(r'data-seen="([-\d,;]+)"', browser.dom(path))
        assert answer and answer[1] == expected


def test_a_browser_paints_films_and_maps_and_complains_of_nothing(tmp_path: Path) -> None:
    browser = Browser.find(tmp_path / "profile")
    path, shot = tmp_path / "page.html", tmp_path / "page.png"
    painted = {}
    path.write_text(page([case("a", {"Mass": 0.9}, {"Mass": 0.5}, flat(), ["Mass"])]))
    assert browser.console(path) == []
    for name, threshold in (("with", 0.5), ("without", None)):
        path.write_text(page([case("a", {"Mass": 0.9}, {"Mass": threshold}, flat(300, 300), ["Mass"])]))
        browser.screenshot(path, shot, 1280, 1200)
        image = cv2.imread(str(shot))
        assert image is not None
        mapped = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)[..., 1] > 60
        painted[name] = (np.abs(image.astype(int) - 128).max(axis=2) <= 2).sum(), mapped.sum()
    assert painted["without"][0] > 200 * 200, "the image"
    assert painted["with"][0] > painted["without"][0] + 2000, "the image again, below the map"
    assert painted["with"][1] > painted["without"][1] + 2000, "the map"
    path.write_text(page([]).replace("</main>", '<img alt="" src="/x.png"></main>'))
    assert browser.console(path), "the policy holds"
