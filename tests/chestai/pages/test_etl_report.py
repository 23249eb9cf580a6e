"""The data report of a build: numbers, escaping, unusual builds, and how a real browser shows it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from chestai.labels.findings import NIH14
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.pages.etl_report.report import render_etl_report
from chestai.pages.page import Cell, Page, Section, Table, render_html
from chestai.phantom import PhantomImage, encode, plan
from tests.chestai.pages.builds import SPLITS, make_row, write_build, write_png
from tests.chestai.pages.html import assert_loads_nothing, extract_text
from tests.support.browser import Browser


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Snapshot]:
    """24 phantoms of 14 findings, one box, and a quarantine of files and rows."""
    root = tmp_path_factory.mktemp("phantoms")
    good = [image for image in plan(40, 96, 7) if image.form == "grey"][:24]
    rows = [make_phantom_row(root, at, image) for at, image in enumerate(good)]
    mass = next(row["image_id"] for row in rows if row["targets"][NIH14.index("Mass")])
    broken = root / "broken.png"
    broken.write_bytes(b"not an image")
    fine = write_png(root / "again.png", 64, 64)
    quarantine = [
        {"item": str(broken), "stage": "etl", "reason": "not_an_image", "detail": "no PNG or JPEG header"},
        {"item": str(fine), "stage": "etl", "reason": "duplicate_content", "detail": "the same file content as a"},
        *({"item": f"row {at}", "stage": "etl", "reason": "entry_unparsable", "detail": "line"} for at in range(1200)),
        {
            "item": "<script>alert(1)</script>,\"onerror='x'",
            "stage": "etl",
            "reason": "unknown_finding",
            "detail": "<img src=https://evil.example/x.png>",
        },
    ]
    box = {"image_id": mass, "finding": "Mass", "x": 24.0, "y": 48.0, "w": 12.0, "h": 24.0}
    accounting = {"entries": 1226, "files": 26, "gold": 24, "quarantined_entries": 1202, "boxes_on_the_moon": 7}
    return write_build(root, rows, boxes=[box], quarantine=quarantine, accounting=accounting)


def make_phantom_row(root: Path, at: int, image: PhantomImage) -> dict[str, Any]:
    path = root / image.image_id
    path.write_bytes(encode(image))
    return make_row(at, [float(finding in image.findings) for finding in NIH14], path)


@pytest.fixture(scope="module")
def html(phantoms: tuple[Lake, Snapshot]) -> str:
    return render_etl_report(*phantoms)


def test_page_shows_the_numbers_of_the_build(phantoms: tuple[Lake, Snapshot], html: str) -> None:
    _, snapshot = phantoms
    text = extract_text(html)
    for phrase in (
        "snapshot 0123456789ab",
        "Images 24",
        "Patients 12",
        "test: classes by folder: a (2) (source.classes)",
        "warning 1 of 2 are copies of an image (sanity.copied_images) views agree (sanity.contradicted_views)",
        "pairs: an image, then the one that it is a copy of",
        "Quarantined items 1,203",
        "SYNTHETIC",
        "not for diagnosis",
        "in quarantine 1,202 98.0%",
        "boxes on the moon 7",
        "entry unparsable 1,200 99.8%",
    ):
        assert phrase in text, phrase
    counts = [snapshot.splits[split]["positives"]["Effusion"] for split in SPLITS]
    row = re.search(r'<th scope="row">Effusion</th>(<td>.*?)</tr>', html)
    assert row and [int(number) for number in re.findall(r"<td>(\d+)", row[1])][:3] == counts
    a, b = NIH14.index("Effusion"), NIH14.index("Mass")
    cooccurrence = re.findall(r'<th scope="row">Effusion</th>(<td style.*?)</tr>', html)
    assert len(cooccurrence) == 1
    assert int(re.findall(r"<td[^>]*>(\d+)", cooccurrence[0])[b]) == snapshot.cooccurrence[a][b]


def test_page_loads_nothing_and_escapes_table_contents(html: str) -> None:
    assert_loads_nothing(re.sub("&lt;.*?&gt;", "", html))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "&lt;img src=https://evil.example/x.png&gt;" in html
    assert len(html) < 3_000_000


def test_images_have_alt_text_and_tables_have_headings(html: str) -> None:
    images = re.findall(r"<img[^>]*>", html)
    assert len(images) > 20 and all(re.search(r'alt="[^"]+"', image) for image in images)
    assert html.count("<table") == html.count("<caption>") >= 7
    assert not re.search(r"<th(?! scope=)", html.replace("<thead", ""))


def test_same_build_gives_the_same_page(phantoms: tuple[Lake, Snapshot], html: str) -> None:
    assert render_etl_report(*phantoms) == html


def test_quarantine_shows_readable_files_and_names_the_others(html: str) -> None:
    section = html.split('id="quarantine"')[1].split("</section>")[0]
    assert section.count("<img ") == 1, "again.png"
    assert section.count('class="film none"') == 6, "broken.png, four of the 1,200 rows, the row with the script"


def unusual_builds() -> Iterator[Any]:
    """Functions that write a build into a folder."""
    yield pytest.param(lambda root: write_build(root, []), id="nothing in gold")
    ageless = [make_row(at, [1.0, 0.0], age_years=None, sex=None, view=None) for at in range(9)]
    yield pytest.param(lambda root: write_build(root, ageless, ["A", "B"], accounting={}), id="no demographics")
    one_split = [make_row(at, [1.0], split="train") for at in range(3)]
    yield pytest.param(lambda root: write_build(root, one_split, ["A"], pixel_mean=float("nan")), id="one finding")
    names = [rf"Finding_$\with{at}$_a_rather_long_name" for at in range(30)]
    unknown = [make_row(at, [1.0, 0.0, float("nan")] * 10) for at in range(30)]
    yield pytest.param(lambda root: write_build(root, unknown, names), id="thirty findings, some not known")

    def write_missing_file(root: Path) -> tuple[Lake, Snapshot]:
        path = write_png(root / "gone.png", 64, 48)
        rows = [make_row(0, [1.0], path)]
        path.unlink()
        return write_build(root, rows, ["A"])

    yield pytest.param(write_missing_file, id="missing file")


@pytest.mark.parametrize("write", unusual_builds())
def test_unusual_builds_have_a_page(tmp_path: Path, write: Any) -> None:
    html = render_etl_report(*write(tmp_path))
    assert_loads_nothing(html)
    text = extract_text(html)
    assert "nan" not in text.lower().split() and "Nothing is in quarantine." in text


def test_unknown_labels_are_counted(tmp_path: Path) -> None:
    rows = [make_row(at, [1.0, float("nan")], view="PA") for at in range(5)]
    html = render_etl_report(*write_build(tmp_path, rows, ["A", "B"]))
    assert "not known" in extract_text(html)
    assert re.search(r'<th scope="row">B</th>.*<td>5</td></tr>', html)


def test_build_without_image_files_has_all_numbers(tmp_path: Path) -> None:
    rows = [make_row(at, [float(at % 14 == column) for column in range(14)]) for at in range(5000)]
    text = extract_text(render_etl_report(*write_build(tmp_path, rows, synthetic=False)))
    assert "Images 5,000 With an image file 0" in text and "No image of this build has a file." in text
    assert "SYNTHETIC" not in text


def test_several_sources_are_shown_separately(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", 64, 64)
    rows = [make_row(at, [1.0], path, source=("one", "two")[at % 2]) for at in range(10)]
    text = extract_text(render_etl_report(*write_build(tmp_path, rows, ["A"])))
    assert "from one, two" in text and "Images by source and split" in text and "Mean by source" in text


def test_shaded_cells_stay_legible_and_escaped() -> None:
    assert Cell("1").style == ""
    assert "color:#1b2430" in Cell("1", shade=0.1).style and "color:#fff" in Cell("1", shade=2).style
    table = Table("<b>", ["a & b"], [["<i>", Cell("<u>", note="<s>", shade=1.0)]])
    html = render_html(Page("<title>", "", [], "", [Section("one", "One", [table])]))
    assert not re.search("<(b|i|u|s)>", html) and "&lt;u&gt;" in html and "a &amp; b" in html


PROBE = """<script>addEventListener("load", () => {
const broken = [...document.images].filter(image => !image.naturalWidth || !image.complete).length;
document.documentElement.dataset.images = document.images.length;
document.documentElement.dataset.broken = broken;
document.documentElement.dataset.overflow = document.documentElement.scrollWidth - innerWidth;
})</script>"""


@pytest.mark.parametrize("width", [1280, 500])
def test_browser_shows_every_image_without_overflow(html: str, tmp_path: Path, width: int) -> None:
    browser = Browser.find(tmp_path / "profile")
    page = tmp_path / "page.html"
    bad = '<img alt="" src="data:image/png;base64,AAAA">'  # proves that the probe sees a broken image
    page.write_text(re.sub("<meta http-equiv[^>]*>", PROBE, html).replace("</body>", f"{bad}</body>"))
    dom = browser.dump_dom(page, width)
    found = {name: int(value) for name, value in re.findall(r'data-(images|broken|overflow)="(-?\d+)"', dom)}
    assert found["images"] == html.count("<img ") + 1 and found["broken"] == 1
    assert found["overflow"] <= 0


def test_browser_paints_the_page_without_policy_violations(html: str, tmp_path: Path) -> None:
    browser = Browser.find(tmp_path / "profile")
    page, shot = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text(html)
    assert browser.read_console(page) == []
    page.write_text(html.replace("</main>", '<img alt="" src="/x.png"></main>'))
    assert browser.read_console(page), "the policy forbids other addresses"
    page.write_text(html)
    browser.screenshot(page, shot, 1280, 4000)
    painted = cv2.imread(str(shot))
    assert painted is not None and painted.shape == (4000, 1280, 3)
    saturation = cv2.cvtColor(painted, cv2.COLOR_BGR2HSV)[..., 1]
    bands = (saturation > 90).reshape(8, 500, 1280).mean(axis=(1, 2))
    assert (bands > 0.001).sum() >= 5, "plots, matrix and banner add colour over the whole page"
