"""The gallery: order, escaping, heatmaps, size, unusual cases, and how a real browser shows it."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from chestai import RESEARCH_USE
from chestai.imaging.heatmap import heatmap, overlay
from chestai.imaging.preprocess import Grey
from chestai.labels.findings import NIH14
from chestai.pages.gallery import MAP_SIDE, SIDE, GalleryImage, render_gallery, shrink
from chestai.pages.page import DASH
from chestai.phantom import draw, plan
from chestai.triage.rule import TriageRule
from tests.chestai.pages.html import extract_text
from tests.support.browser import Browser

RULE = TriageRule({"Pneumothorax": 1.0, "Mass": 0.7, "Effusion": 0.6})
FACTS = {"Model": "chestai version 3", "Snapshot": "2b2cc2b647f6", "Scored": "2026-01-02 13:05 UTC"}
HOSTILE = "<script>alert('1')</script>\"><img src=https://evil.example/x.png>/</style></main>.png"


def make_case(
    image_id: str,
    probabilities: Mapping[str, float],
    thresholds: Mapping[str, float | None],
    grey: Grey,
    maps: Sequence[str] = (),
    seed: int = 0,
) -> GalleryImage:
    """A case scored by `RULE`; other findings have a probability of 0.01. maps: findings with a heatmap."""
    rng = np.random.default_rng(seed)
    probabilities = {**dict.fromkeys(RULE.weights, 0.01), **probabilities}
    values, findings = [float(np.nan_to_num(value)) for value in probabilities.values()], list(probabilities)
    score = float(RULE.score([values], findings)[0])
    heatmaps = {finding: heatmap(rng.normal(size=(7, 7)).astype(np.float32), *grey.shape) for finding in maps}
    return GalleryImage(
        image_id,
        RULE.bucket(score),
        score,
        RULE.find_drivers(values, findings),
        probabilities,
        thresholds,
        grey,
        heatmaps,
    )


def make_grey(height: int = 40, width: int = 30) -> Grey:
    return np.full((height, width), 128, np.uint8)


def render(cases: Sequence[GalleryImage], images: bool = False, model: bool = False) -> str:
    return render_gallery(cases, "Most urgent cases", FACTS, synthetic_images=images, synthetic_model=model)


def find_articles(html: str) -> list[str]:
    return re.findall(r"<article.*?</article>", html, flags=re.S)


def find_captions(article: str) -> list[str]:
    """The captions of the heatmaps, which follow the image itself."""
    return re.findall(r"<figcaption>([^<]*)</figcaption>", article)[1:]


def decode_images(html: str, kind: str) -> list[np.ndarray]:
    """The embedded images of a kind, `jpeg` or `png`, with transparency if they have it."""
    found = re.findall(rf'href="data:image/{kind};base64,([^"]+)"', html)
    images = [cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED) for data in found]
    assert all(image is not None for image in images)
    return [np.asarray(image) for image in images]


@pytest.fixture(scope="module")
def phantoms() -> list[GalleryImage]:
    """50 cases of 10 phantoms in three shapes; all 14 findings reach their operating point and have a heatmap."""
    films = [image for image in plan(40, 420, 3) if image.findings][:10]
    drawn = [draw(film)[0] for film in films]
    shapes = (slice(0, 420), slice(0, 420)), (slice(0, 420), slice(60, 360)), (slice(0, 300), slice(0, 420))
    cases = []
    for at in range(50):
        film, grey = films[at % 10], np.ascontiguousarray(drawn[at % 10][shapes[at % 3]])
        probabilities = {name: 0.9 - 0.01 * at if name in film.findings else 0.1 for name in NIH14}
        cases.append(make_case(f"{at}/{film.image_id}", probabilities, dict.fromkeys(NIH14, 0.05), grey, NIH14, at))
    return cases


@pytest.fixture(scope="module")
def html(phantoms: list[GalleryImage]) -> str:
    return render([*phantoms[:5], replace(phantoms[5], image_id=HOSTILE)], images=True)


def test_worklist_and_cases_are_sorted_by_urgency() -> None:
    scores = {"c": 0.3, "b": 0.9, "d": 0.9, "a": 0.6}
    html = render([make_case(name, {"Pneumothorax": score}, {}, make_grey()) for name, score in scores.items()])
    rows = re.findall(r'<td class="name"><a href="#(case-\d)"><bdi>(\w)</bdi></a></td>', html)
    assert rows == [("case-1", "b"), ("case-2", "d"), ("case-3", "a"), ("case-4", "c")]
    headings = re.findall(
        r'<article class="card case" id="(case-\d)".*?<h3[^>]*>\d\. <bdi>(\w)</bdi>', html, flags=re.S
    )
    assert headings == rows
    text = extract_text(html)
    assert "4 cases, most urgent first: 2 urgent, 1 soon, 1 routine" in text
    assert "1 b urgent 0.900 Pneumothorax 0.90, Mass 0.01, Effusion 0.01 2 d urgent" in text


def test_page_shows_facts_and_research_notice() -> None:
    text = extract_text(render([]))
    assert "Model chestai version 3 Snapshot 2b2cc2b647f6 Scored 2026-01-02 13:05 UTC" in text
    assert text.count(RESEARCH_USE) == 2


def test_synthetic_images_and_models_are_marked() -> None:
    assert "SYNTHETIC" not in render([])
    assert "SYNTHETIC: computer-drawn phantoms, not X-rays" in render([], images=True)
    assert "SYNTHETIC: computer-drawn phantoms, not X-rays" in render([], images=True, model=True)
    assert "SYNTHETIC: the model was trained on computer-drawn phantoms" in render([], model=True)


def test_page_loads_nothing_and_escapes_names(html: str) -> None:
    assert escape(HOSTILE).replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in html
    for forbidden in ("<script", "<link", "<iframe", "@import", "url(", "onerror"):
        assert forbidden not in html.lower()
    assert html.count("</style>") == html.count("</main>") == 1
    written = html.replace(escape(HOSTILE).replace("&quot;", "&#34;").replace("&#x27;", "&#39;"), "")
    assert "://" not in written
    assert set(re.findall(r'(?:src|srcset|href|data|poster)="(#|data:|[^"]{1,20})', written)) == {"#", "data:"}
    odd = render([make_case("a", {"<b>x</b>": 0.9}, {"<b>x</b>": 0.5}, make_grey(), ["<b>x</b>"])])
    assert "<b>x" not in odd and "&lt;b&gt;x" in odd


def test_name_with_surrogates_can_be_encoded() -> None:
    html = render([make_case("a\udcff.png", {}, {}, make_grey())])
    assert b"a?.png" in html.encode()


def test_links_have_targets_and_ids_are_unique(html: str) -> None:
    anchors = re.findall(r'\bid="([^"]+)"', html)
    assert len(anchors) == len(set(anchors)) >= 6 * 3
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(anchors)
    twins = render([make_case("same.png", {}, {}, make_grey()) for _ in range(2)])
    assert 'id="case-1"' in twins and 'id="case-2"' in twins


def test_heatmap_is_shown_only_when_finding_reaches_its_operating_point() -> None:
    probabilities = {"Mass": 0.49, "Effusion": 0.5, "Nodule": 0.9, "Edema": 0.9, "Fibrosis": 0.7, "Hernia": np.nan}
    thresholds = {"Mass": 0.5, "Effusion": 0.5, "Nodule": None, "Edema": np.nan, "Fibrosis": 0.5, "Hernia": 0.5}
    (article,) = find_articles(render([make_case("a", probabilities, thresholds, make_grey(), list(probabilities))]))
    assert find_captions(article) == ["Fibrosis 0.700", "Effusion 0.500"]
    rows = re.findall(r"<tr( class=\"reached\")?><th scope=\"row\">(\w+)</th>.*?<td>([^<]*)</td></tr>", article)
    assert rows[:4] == [
        (' class="reached"', "Fibrosis", "yes"),
        (' class="reached"', "Effusion", "yes"),
        ("", "Nodule", DASH),
        ("", "Edema", DASH),
    ]
    assert rows[4:] == [("", "Mass", "no"), ("", "Pneumothorax", DASH), ("", "Hernia", "no")]
    assert "nan" not in extract_text(article).lower().split()


def test_reached_finding_without_heatmap_has_only_a_row() -> None:
    (article,) = find_articles(render([make_case("a", {"Mass": 0.9}, {"Mass": 0.5}, make_grey())]))
    assert find_captions(article) == [] and article.count('class="reached"') == 1


def test_heatmap_overlay_matches_the_endpoint() -> None:
    grey = np.random.default_rng(1).integers(90, 160, (MAP_SIDE, MAP_SIDE // 2)).astype(np.uint8)
    scored = make_case("a", {"Mass": 0.9}, {"Mass": 0.5}, grey, ["Mass"])
    (painted,) = decode_images(render([scored]), "png")
    assert painted.shape == (*grey.shape, 4)
    alpha = painted[..., 3:].astype(float) / 255
    blended = grey[..., None] * (1 - alpha) + painted[..., :3] * alpha
    reference = cv2.imdecode(np.frombuffer(overlay(grey, scored.maps["Mass"]), np.uint8), cv2.IMREAD_COLOR)
    assert reference is not None and np.abs(blended - reference).max() < 4
    assert np.abs(reference.astype(float) - grey[..., None]).max() > 40, "otherwise the comparison proves nothing"


@pytest.mark.parametrize("shape", [(1, 1), (384, 384), (385, 200), (900, 2000), (3000, 2), (1, 5000)])
def test_images_are_scaled_down_and_keep_their_aspect_ratio(shape: tuple[int, int]) -> None:
    scored = make_case("a", {"Mass": 0.9}, {"Mass": 0.5}, make_grey(*shape), ["Mass"])
    html = render([scored])
    (image,), (painted,) = decode_images(html, "jpeg"), decode_images(html, "png")
    assert image.shape == shrink(scored.grey).shape and image.shape == (shape if max(shape) <= SIDE else image.shape)
    assert max(image.shape) <= SIDE and max(painted.shape[:2]) <= MAP_SIDE
    height, width = (side * min(1, SIDE / max(shape)) for side in shape)
    assert abs(image.shape[0] - height) <= 1 and abs(image.shape[1] - width) <= 1


def test_fifty_cases_with_all_heatmaps_stay_under_8_mb(phantoms: list[GalleryImage]) -> None:
    html = render(phantoms)
    assert len(decode_images(html, "jpeg")) == 50 and len(decode_images(html, "png")) == 50 * 14
    assert len(html.encode()) < 8_000_000


def test_gallery_without_cases_is_a_page() -> None:
    html = render([])
    assert "No cases" in extract_text(html) and "There are no cases to show." in extract_text(html)
    assert "<article" not in html and "<table" not in html


def test_order_of_input_does_not_matter(phantoms: list[GalleryImage]) -> None:
    some = phantoms[:3]
    assert render(some) == render(some[::-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, "score nan of 'a'"),
        ({"score": 1.2}, "score 1.2 of 'a'"),
        ({"grey": np.zeros((4, 4, 3), np.uint8)}, r"image 'a' is uint8 \(4, 4, 3\)"),
        ({"grey": np.zeros((4, 4), np.float32)}, r"image 'a' is float32 \(4, 4\)"),
        ({"grey": np.zeros((0, 4), np.uint8)}, r"image 'a' is uint8 \(0, 4\)"),
        ({"maps": {"Mass": np.zeros((3, 3), np.float32)}}, r"map of Mass is \(3, 3\), but image 'a' is \(40, 30\)"),
        ({"maps": {"Mass": np.full((40, 30), 1.5, np.float32)}}, r"map of Mass on 'a' has values outside \[0, 1\]"),
        ({"maps": {"Mass": np.full((40, 30), np.nan, np.float32)}}, r"map of Mass on 'a' has values outside \[0, 1\]"),
    ],
)
def test_rejects_invalid_cases(change: dict[str, Any], message: str) -> None:
    good = make_case("a", {"Mass": 0.9}, {"Mass": 0.5}, make_grey())
    render([good])
    with pytest.raises(ValueError, match=message):
        render([replace(good, **change)])


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
document.documentElement.dataset.result = [...document.querySelectorAll("iframe")].map(look).join(";");
}})</script>"""


def test_browser_shows_no_overflow(html: str, tmp_path: Path) -> None:
    browser = Browser.find(tmp_path / "profile")  # in frames, because Chromium's own window is at least 500 pixels wide
    path = tmp_path / "page.html"
    bad = '<p class="card" style="width:300px"><svg style="width:9px"></svg><b>' + "x" * 999 + "</b></p>"
    for text, expected in ((html, "1280,0,0;390,0,0"), (html.replace("</main>", f"{bad}</main>"), "1280,1,1;390,1,1")):
        path.write_text(PROBE.format(page=escape(text)))
        answer = re.search(r'data-result="([-\d,;]+)"', browser.dump_dom(path))
        assert answer and answer[1] == expected


def test_browser_paints_images_and_heatmaps_without_policy_violations(tmp_path: Path) -> None:
    browser = Browser.find(tmp_path / "profile")
    path, shot = tmp_path / "page.html", tmp_path / "page.png"
    painted = {}
    path.write_text(render([make_case("a", {"Mass": 0.9}, {"Mass": 0.5}, make_grey(), ["Mass"])]))
    assert browser.read_console(path) == []
    for name, threshold in (("with", 0.5), ("without", None)):
        path.write_text(render([make_case("a", {"Mass": 0.9}, {"Mass": threshold}, make_grey(300, 300), ["Mass"])]))
        browser.screenshot(path, shot, 1280, 1200)
        image = cv2.imread(str(shot))
        assert image is not None
        mapped = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)[..., 1] > 60
        painted[name] = (np.abs(image.astype(int) - 128).max(axis=2) <= 2).sum(), mapped.sum()
    assert painted["without"][0] > 200 * 200, "the image"
    assert painted["with"][0] > painted["without"][0] + 2000, "the image again, below the heatmap"
    assert painted["with"][1] > painted["without"][1] + 2000, "the heatmap"
    path.write_text(render([]).replace("</main>", '<img alt="" src="/x.png"></main>'))
    assert browser.read_console(path), "the policy forbids other addresses"
