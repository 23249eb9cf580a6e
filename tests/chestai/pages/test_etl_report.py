"""The report of a build: its numbers, its safety, odd builds, and how it looks to a real browser."""

import re
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from chestai.clock import now
from chestai.labels.findings import NIH14
from chestai.lake.lake import Lake
from chestai.lake.schemas import BOXES, IMAGES, LABELS, QUARANTINE, SCHEMAS
from chestai.lake.snapshot import Snapshot
from chestai.pages.etl_report import report, thumbnails
from chestai.pages.etl_report.gold import GoldTables
from chestai.pages.etl_report.thumbnails import SIDE, scale_box, select_examples
from chestai.pages.page import Cell, Page, Section, Table, render_html
from chestai.phantom import PhantomImage, encode, plan
from tests.support.browser import Browser

SPLITS = ("train", "val", "test")
Rows = Sequence[dict[str, Any]]


def write_build(
    root: Path,
    images: Rows,
    vocabulary: Sequence[str] = NIH14,
    boxes: Rows = (),
    quarantine: Rows = (),
    accounting: dict[str, int] | None = None,
    pixel_mean: float = 0.5,
    synthetic: bool = True,
) -> tuple[Lake, Snapshot]:
    """A lake with one build, of rows of gold/images with their `targets`; the counts are taken from them."""
    lake = Lake(str(root / "lake"))
    targets = np.array([image["targets"] for image in images], float).reshape(len(images), len(vocabulary))
    labels = [
        {"image_id": image["image_id"], "findings": [], "targets": [None if np.isnan(x) else x for x in row]}
        for image, row in zip(images, targets, strict=True)
    ]
    tables = {IMAGES: images, LABELS: labels, BOXES: boxes, QUARANTINE: quarantine}
    versions = {
        name: lake.write(name, pa.Table.from_pylist(list(rows), schema=SCHEMAS[name])) for name, rows in tables.items()
    }
    counts: dict[str, dict[str, Any]] = {}
    frontal = np.array([image["view"] != "lateral" for image in images], bool)
    for split in SPLITS:
        whole = np.array([image["split"] == split for image in images], bool)
        of = whole & frontal
        positives, known = (targets[of] == 1).sum(axis=0), np.isfinite(targets[of]).sum(axis=0)
        counts[split] = {
            "images": int(of.sum()),
            "laterals": int((whole & ~frontal).sum()),
            "patients": len({image["patient_id"] for image in images if image["split"] == split}),
            "positives": dict(zip(vocabulary, positives.tolist(), strict=True)),
            "prevalence": dict(zip(vocabulary, (positives / np.maximum(known, 1)).tolist(), strict=True)),
        }
    positive = (targets[frontal] == 1).astype(int)
    snapshot = Snapshot(
        snapshot_id="0123456789ab",
        built_at=now(),
        source="test",
        fingerprint="f",
        vocabulary=tuple(vocabulary),
        versions=versions,
        accounting=accounting if accounting is not None else {"entries": len(images), "gold": len(images)},
        splits=counts,
        pos_weight=tuple(
            float(n) for n in (len(positive) - positive.sum(axis=0)) / np.maximum(positive.sum(axis=0), 1)
        ),
        cooccurrence=tuple(tuple(row) for row in (positive.T @ positive).tolist()),
        pixel_mean=pixel_mean,
        pixel_std=0.25,
        synthetic=synthetic,
    )
    lake.publish(snapshot)
    return lake, lake.snapshot()


def image_row(at: int, targets: Sequence[float], path: Path | None = None, **more: Any) -> dict[str, Any]:
    """A row of gold/images, with what the file tells where there is one."""
    row = {
        "image_id": f"image_{at:03d}",
        "source": "test",
        "patient_id": f"p{at // 2}",
        "age_years": 20.0 + at % 60,
        "sex": "MF"[at % 2],
        "view": ("PA", "AP", "lateral")[at % 3],
        "split": SPLITS[(at % 10) // 4],
        "targets": targets,
    }
    if path is not None:
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert grey is not None
        row |= {"path": str(path), "height": grey.shape[0], "width": grey.shape[1], "channels": 1}
        row |= {"bytes": path.stat().st_size, "sha256": f"{at:064x}"}
        row |= {"pixel_mean": grey.mean() / 255, "pixel_std": grey.std() / 255}
    return {**row, **more}


def write_png(path: Path, height: int, width: int, grey: int = 128) -> Path:
    assert cv2.imwrite(str(path), np.full((height, width), grey, np.uint8))
    return path


def text_of(html: str) -> str:
    """What a reader sees, on one line."""
    body = re.sub(r"<style>.*?</style>", "", html, flags=re.S)
    return unescape(" ".join(re.sub(r"<[^>]*>", " ", body).split()))


def assert_self_contained(html: str) -> None:
    for forbidden in ("http://", "https://", "<script", "<link", "<iframe", "@import", "url("):
        assert forbidden not in html.lower()
    assert set(re.findall(r'(?:src|srcset|href|data|poster)="(#|data:|[^"]{1,20})', html)) <= {"#", "data:"}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Snapshot]:
    """24 phantoms of 14 findings, with boxes and a quarantine of files and rows."""
    root = tmp_path_factory.mktemp("phantoms")
    good = [image for image in plan(40, 96, 7) if image.form == "grey"][:24]
    rows = [phantom_row(root, at, image) for at, image in enumerate(good)]
    mass = next(row["image_id"] for row in rows if row["targets"][NIH14.index("Mass")])
    broken = root / "broken.png"
    broken.write_bytes(b"not an image")
    fine = write_png(root / "again.png", 64, 64)
    refused = [
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
    return write_build(root, rows, boxes=[box], quarantine=refused, accounting=accounting)


def phantom_row(root: Path, at: int, image: PhantomImage) -> dict[str, Any]:
    path = root / image.image_id
    path.write_bytes(encode(image))
    return image_row(at, [float(finding in image.findings) for finding in NIH14], path)


@pytest.fixture(scope="module")
def html(phantoms: tuple[Lake, Snapshot]) -> str:
    return report.render_etl_report(*phantoms)


def test_the_numbers_of_the_build_are_on_the_page(phantoms: tuple[Lake, Snapshot], html: str) -> None:
    _, snapshot = phantoms
    seen = text_of(html)
    for phrase in (
        "snapshot 0123456789ab",
        "Images 24",
        "Patients 12",
        "Quarantined items 1,203",
        "SYNTHETIC",
        "not for diagnosis",
        "in quarantine 1,202 98.0%",
        "boxes on the moon 7",
        "entry unparsable 1,200 99.8%",
    ):
        assert phrase in seen, phrase
    counts = [snapshot.splits[split]["positives"]["Effusion"] for split in SPLITS]
    row = re.search(r'<th scope="row">Effusion</th>(<td>.*?)</tr>', html)
    assert row and [int(number) for number in re.findall(r"<td>(\d+)", row[1])][:3] == counts
    a, b = NIH14.index("Effusion"), NIH14.index("Mass")
    together = re.findall(r'<th scope="row">Effusion</th>(<td style.*?)</tr>', html)
    assert len(together) == 1
    assert int(re.findall(r"<td[^>]*>(\d+)", together[0])[b]) == snapshot.cooccurrence[a][b]


def test_the_page_loads_nothing_and_escapes_what_tables_held(html: str) -> None:
    assert_self_contained(re.sub("&lt;.*?&gt;", "", html))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "&lt;img src=https://evil.example/x.png&gt;" in html
    assert len(html) < 3_000_000


def test_every_image_has_a_text_and_every_table_its_headings(html: str) -> None:
    images = re.findall(r"<img[^>]*>", html)
    assert len(images) > 20 and all(re.search(r'alt="[^"]+"', image) for image in images)
    assert html.count("<table") == html.count("<caption>") >= 7
    assert not re.search(r"<th(?! scope=)", html.replace("<thead", ""))


def test_the_same_build_gives_the_same_page(phantoms: tuple[Lake, Snapshot], html: str) -> None:
    assert report.render_etl_report(*phantoms) == html


def test_a_refused_file_is_shown_where_it_can_be_read_and_named_where_not(html: str) -> None:
    section = html.split('id="quarantine"')[1].split("</section>")[0]
    assert section.count("<img ") == 1, "again.png"
    assert section.count('class="film none"') == 6, "broken.png, four of the 1,200 rows, the row with the script"


def test_montage_prefers_train_but_shows_a_boxed_image(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", 64, 64)
    rows = [image_row(at, [1.0], path, split="train" if at < 6 else "test") for at in range(8)]
    rows.append(image_row(8, [1.0], None, split="train"))
    box = {"image_id": "image_007", "finding": "Mass", "x": 0.0, "y": 0.0, "w": 32.0, "h": 32.0}
    gold = GoldTables.read(*write_build(tmp_path, rows, ["Mass"], boxes=[box]))
    (gallery,) = select_examples(gold.images, gold.targets, gold.boxes, ["Mass"])
    first, *others = gallery.pictures
    assert first.lines[0] == "image_007" and first.boxes == [(0.0, 0.0, 50.0, 50.0)]
    assert len(others) == 3 and all("train" in picture.lines[-1] and not picture.boxes for picture in others)
    assert gallery.note == "9 in gold, 8 with a file"


def test_only_files_of_ours_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def reader(path: str) -> bytes:
        read.append(path)
        return b""

    monkeypatch.setattr(thumbnails, "read_bytes", reader)
    ours = write_png(tmp_path / "a.png", 64, 64)
    items = [str(ours), "/dev/zero", "s3://ours/a.png", "s3://theirs/a.png", "0001.png,Mass", str(tmp_path)]
    rows = [{"item": item, "reason": str(at), "detail": None} for at, item in enumerate(items)]
    assert (
        len(
            thumbnails.select_quarantined(
                pd.DataFrame(rows), {thumbnails.get_store("s3://ours/b/c.png"), thumbnails.get_store("/x.png")}
            )
        )
        == 6
    )
    assert read == [str(ours), "s3://ours/a.png"]


def test_boxes_fall_where_the_thumbnail_shows_them() -> None:
    image = pd.Series({"height": 100, "width": 200})
    assert scale_box(np.array([0.0, 0.0, 200.0, 100.0]), image) == (0.0, 25.0, 100.0, 50.0)
    assert scale_box(np.array([100.0, 50.0, 900.0, 10.0]), image)[:2] == (50.0, 50.0)
    assert SIDE % 4 == 0, "or the numbers above are rounded"


def odd_builds() -> Iterator[Any]:
    """Builds that a report must survive, as functions of a folder."""
    yield pytest.param(lambda root: write_build(root, []), id="nothing in gold")
    ageless = [image_row(at, [1.0, 0.0], age_years=None, sex=None, view=None) for at in range(9)]
    yield pytest.param(lambda root: write_build(root, ageless, ["A", "B"], accounting={}), id="no demographics")
    one_split = [image_row(at, [1.0], split="train") for at in range(3)]
    yield pytest.param(lambda root: write_build(root, one_split, ["A"], pixel_mean=float("nan")), id="one finding")
    names = [rf"Finding_$\with{at}$_a_rather_long_name" for at in range(30)]
    unknown = [image_row(at, [1.0, 0.0, float("nan")] * 10) for at in range(30)]
    yield pytest.param(lambda root: write_build(root, unknown, names), id="thirty findings, some not known")

    def vanished(root: Path) -> tuple[Lake, Snapshot]:
        path = write_png(root / "gone.png", 64, 48)
        rows = [image_row(0, [1.0], path)]
        path.unlink()
        return write_build(root, rows, ["A"])

    yield pytest.param(vanished, id="a file that vanished")


@pytest.mark.parametrize("make", odd_builds())
def test_odd_builds_have_a_page_too(tmp_path: Path, make: Any) -> None:
    html = report.render_etl_report(*make(tmp_path))
    assert_self_contained(html)
    seen = text_of(html)
    assert "nan" not in seen.lower().split() and "Nothing was refused." in seen


def test_answers_that_are_not_known_are_counted(tmp_path: Path) -> None:
    rows = [image_row(at, [1.0, float("nan")], view="PA") for at in range(5)]
    html = report.render_etl_report(*write_build(tmp_path, rows, ["A", "B"]))
    assert "not known" in text_of(html)
    assert re.search(r'<th scope="row">B</th>.*<td>5</td></tr>', html)


def test_a_build_of_labels_only_has_no_image_but_all_numbers(tmp_path: Path) -> None:
    rows = [image_row(at, [float(at % 14 == place) for place in range(14)]) for at in range(5000)]
    seen = text_of(report.render_etl_report(*write_build(tmp_path, rows, synthetic=False)))
    assert "Images 5,000 With an image file 0" in seen and "No image of this build has a file." in seen
    assert "SYNTHETIC" not in seen


def test_several_sources_are_told_apart(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", 64, 64)
    rows = [image_row(at, [1.0], path, source=("one", "two")[at % 2]) for at in range(10)]
    seen = text_of(report.render_etl_report(*write_build(tmp_path, rows, ["A"])))
    assert "from one, two" in seen and "Images by source and split" in seen and "Mean by source" in seen


def test_shaded_cells_stay_legible() -> None:
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
def test_a_browser_shows_every_image_and_no_line_is_too_wide(html: str, tmp_path: Path, width: int) -> None:
    browser = Browser.find(tmp_path / "profile")
    page = tmp_path / "page.html"
    bad = '<img alt="" src="data:image/png;base64,AAAA">'  # so that a probe that sees nothing fails
    page.write_text(re.sub("<meta http-equiv[^>]*>", PROBE, html).replace("</body>", f"{bad}</body>"))
    seen = browser.dom(page, width)
    found = {name: int(value) for name, value in re.findall(r'data-(images|broken|overflow)="(-?\d+)"', seen)}
    assert found["images"] == html.count("<img ") + 1 and found["broken"] == 1
    assert found["overflow"] <= 0


def test_a_browser_paints_the_page_and_its_policy_forbids_nothing_of_it(html: str, tmp_path: Path) -> None:
    browser = Browser.find(tmp_path / "profile")
    page, shot = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text(html)
    assert browser.console(page) == []
    page.write_text(html.replace("</main>", '<img alt="" src="/x.png"></main>'))
    assert browser.console(page), "the policy holds"
    page.write_text(html)
    browser.screenshot(page, shot, 1280, 4000)
    painted = cv2.imread(str(shot))
    assert painted is not None and painted.shape == (4000, 1280, 3)
    saturation = cv2.cvtColor(painted, cv2.COLOR_BGR2HSV)[..., 1]
    bands = (saturation > 90).reshape(8, 500, 1280).mean(axis=(1, 2))
    assert (bands > 0.001).sum() >= 5, "plots, heat map and banner have colours all the way down"
