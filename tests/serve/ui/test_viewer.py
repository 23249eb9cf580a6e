"""The film: shown as the decoder reads it, and overlaid where it is. On real Chromium."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import gdcm
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, Route

from chestai.imaging import preprocess
from serve.api.routes import images
from serve.db.models import PredictionRow
from tests.serve.ui.site import Site, find_violations, open_site, poll
from tests.support import dicom
from tests.support.browser import NAMES
from tests.support.models import image

SOFTWARE_GPU = (
    "--headless",
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
BOX = (150, 300, 330, 420)  # left, top, right, bottom, in pixels of a film of 700 x 900
DARK, BRIGHT = 40, 220
MIDDLE = (DARK + BRIGHT) // 2
SHOWN = ".film-canvas[data-shown=true]"
NEAR = 2  # pixels of the screen
GREY, COLOURED = 10, 60  # difference of a pixel's channels: at most, at least

Pixels = NDArray[np.uint8]


def open_study(site: Site, image_id: str, query: str = "?renderer=cpu", **size: Any) -> Page:
    """Opens a study and waits for its film, or for why there is none."""
    page = site.open(f"/ui/studies/{image_id}{query}", **size)
    wait_for_film(page)
    return page


def wait_for_film(page: Page) -> None:
    poll(lambda: page.locator(f"{SHOWN}, .stage [role=alert]").count(), "a film, or why not")


def encoded(pixels: Pixels, suffix: str = ".png") -> bytes:
    ok, data = cv2.imencode(suffix, pixels)
    assert ok
    return data.tobytes()


def films(folder: Path) -> dict[str, bytes]:
    plain = dicom.a_file()
    syntaxes = gdcm.TransferSyntax
    return {
        "PNG": image(1, 300, 240),
        "JPEG": image(2, 300, 240, ".jpg"),
        "explicit": plain,
        "MONOCHROME1": dicom.a_file(PhotometricInterpretation="MONOCHROME1"),
        "JPEG Lossless": dicom.compressed(folder, plain, syntaxes.JPEGLosslessProcess14_1),
        "JPEG 2000": dicom.compressed(folder, plain, syntaxes.JPEG2000Lossless),
        "RLE": dicom.compressed(folder, plain, syntaxes.RLELossless),
    }


def seen(page: Page, margin: float = 0) -> Pixels:
    """The film area as it is on the screen, BGR, without so many pixels at its lower edge."""
    area: Any = page.locator(".film-canvas").bounding_box()
    png = page.screenshot(clip=area | {"height": area["height"] - margin})
    return np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def fitted(grey: Pixels, height: int, width: int) -> tuple[Pixels, int, int]:
    """The film at the size at which it fits the canvas, and where its left top corner is."""
    scale = min(height / grey.shape[0], width / grey.shape[1])
    size = (round(grey.shape[1] * scale), round(grey.shape[0] * scale))
    shown = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    return shown, (width - size[0]) // 2, (height - size[1]) // 2


@pytest.mark.slow
def test_films_are_shown_as_the_decoder_reads_them(site: Site, tmp_path: Path) -> None:
    for name, data in films(tmp_path).items():
        page = open_study(site, site.upload(data))
        assert page.locator(".stage [role=alert]").count() == 0, name
        on_screen = seen(page)[..., 0]
        expected, left, top = fitted(np.asarray(preprocess.decode(data)), *on_screen.shape)
        part = on_screen[top : top + expected.shape[0], left : left + expected.shape[1]]
        likeness = np.corrcoef(part.ravel(), expected[: part.shape[0], : part.shape[1]].ravel())[0, 1]
        assert likeness > 0.98, f"{name}: {likeness}"  # -1 where black is white
        page.context.close()


def test_broken_film_is_never_the_film_before_it(site: Site, tmp_path: Path) -> None:
    good = dicom.compressed(tmp_path, dicom.a_file(), gdcm.TransferSyntax.JPEG2000Lossless)
    at = good.index(b"\xff\x4f\xff\x51")  # the start of the picture
    broken = good[:at] + bytes(200) + good[at + 200 :]
    before, after = site.upload(good), site.upload(image(4))
    page = open_study(site, before)
    page.route("**/file*", lambda route: route.fulfill(body=broken, content_type="application/dicom"))
    page.evaluate("(path) => history.pushState(null, '', path)", f"/ui/studies/{after}?renderer=cpu")
    page.evaluate("window.dispatchEvent(new PopStateEvent('popstate'))")  # the same page, the same decoder
    poll(lambda: page.locator(".stage [role=alert]").count(), "why the film is not shown")
    assert page.inner_text(".stage [role=alert]").startswith("This film cannot be shown: ")
    assert page.locator(".film-canvas").count() == 0


def test_film_that_was_not_kept(browser: Browser, tmp_path: Path) -> None:
    with open_site(browser, tmp_path, "state.keep_images=false") as site:
        page = open_study(site, site.upload(image(3)))
        assert page.inner_text(".stage [role=alert]").startswith("Image not kept")
        assert page.locator(".findings tbody tr").count() == 3, "what is known is shown all the same"
        assert find_violations(page) == []


@pytest.mark.slow
@pytest.mark.parametrize("renderer", ["cpu", "gpu"])
def test_overlay_lies_on_its_film(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renderer: str
) -> None:
    left, top, right, bottom = BOX
    film, marked = np.full((900, 700), DARK, np.uint8), np.zeros((900, 700), np.uint8)
    film[top:bottom, left:right] = BRIGHT
    marked[top:bottom, left:right] = 255

    async def draw_mark(*_: object) -> bytes:
        return encoded(marked)

    monkeypatch.setattr(images, "draw_map", draw_mark)
    if renderer == "gpu":
        binary = next(filter(None, map(shutil.which, NAMES)))
        browser = browser.browser_type.launch(executable_path=binary, args=[*SOFTWARE_GPU])
    with open_site(browser, tmp_path) as site:
        image_id = site.upload(encoded(film), positives=("Mass",))
        page = open_study(site, image_id, f"?renderer={renderer}")
        assert page.locator(SHOWN).get_attribute("data-renderer") == renderer
        compare_overlay(page)
    if renderer == "gpu":
        browser.close()


def compare_overlay(page: Page) -> None:
    """Compares the box of the film with that of the overlay after each change of the view."""
    area: Any = page.locator(".film-canvas").bounding_box()
    x, y = area["x"] + 0.42 * area["width"], area["y"] + 0.4 * area["height"]

    def zoom() -> None:
        page.mouse.move(x, y)
        page.mouse.wheel(0, -300)

    def pan() -> None:
        page.mouse.move(x, y)
        page.mouse.down(button="middle")
        page.mouse.move(x + 50, y + 30, steps=4)
        page.mouse.up(button="middle")

    steps: dict[str, Callable[[], None]] = {
        "fit": lambda: None,
        "zoom": zoom,
        "pan": pan,
        "rotate": lambda: page.keyboard.press("r"),
        "pan rotated": pan,
        "invert": lambda: page.keyboard.press("i"),
    }
    for name, step in steps.items():
        step()
        page.wait_for_timeout(300)
        film = seen(page, 90).astype(int)
        assert np.ptp(film, axis=2).max() < GREY, f"{name}: an overlay that nobody asked for"
        # Inverted, the box is dark on a bright film, and black is what lies around it.
        inside = film[..., 0] > MIDDLE if name != "invert" else (film[..., 0] < MIDDLE) & (film[..., 0] > GREY)
        page.keyboard.press("o")
        poll(lambda: page.locator(".film-overlay").count(), "the overlay")
        page.wait_for_timeout(300)
        coloured = np.ptp(seen(page, 90).astype(int), axis=2) > COLOURED
        page.keyboard.press("o")
        apart = np.abs(np.subtract(bounds(inside), bounds(coloured))).max()
        assert apart <= NEAR, f"{name}: {bounds(inside)} and {bounds(coloured)}"


def bounds(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_no_overlay_below_the_operating_point_or_where_modes_forbid_it(browser: Browser, tmp_path: Path) -> None:
    film = encoded(np.full((90, 70), DARK, np.uint8))
    for number, (mode, positives) in enumerate({"true": (), "false": ("Mass",)}.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        with open_site(browser, folder, f"serve.modes.overlays={mode}") as site:
            image_id = site.upload(film, positives=positives)
            if not positives:
                clear_positives(site, image_id)
            page = open_study(site, image_id)
            assert page.get_by_role("button", name="Overlay").is_disabled()
            page.keyboard.press("o")
            page.wait_for_timeout(300)
            assert page.locator(".film-overlay").count() == 0


def test_flags_alone_have_no_numbers_no_overlay_and_no_verdicts(browser: Browser, tmp_path: Path) -> None:
    with open_site(browser, tmp_path, "serve.modes.flag_only=true") as site:
        image_id = site.upload(image(5, 300, 240), positives=("Mass",))
        page = open_study(site, image_id)
        panel = page.locator(".study-panel")
        poll(lambda: "flags alone" in panel.inner_text(), "the flag")
        assert re.search(r"(not )?flagged", panel.inner_text()) and not re.search(r"0\.\d|[0-9] ?%", panel.inner_text())
        assert page.get_by_role("button", name="Overlay").is_disabled()
        for key in ("o", "a", "d", "Enter"):
            page.keyboard.press(key)
        page.wait_for_timeout(300)
        assert page.locator(".film-overlay, .findings").count() == 0 and image_id in page.url
        assert page.get_by_role("button", name=re.compile("gree")).count() == 0 and site.reviews() == []
        assert find_violations(page) == []


def clear_positives(site: Site, image_id: str) -> None:
    with site.services.state.store.database.write_session() as session:
        session.get_one(PredictionRow, (image_id, 1)).positives = []


def test_keys_of_a_length_judge_nothing_though_the_record_comes_late(site: Site) -> None:
    image_id = site.upload(dicom.a_file())
    page, held = site.open(), list[Route]()
    page.route(f"**/images/{image_id}", lambda route: held.append(route))
    page.goto(f"{site.url}/ui/studies/{image_id}?renderer=cpu")
    wait_for_film(page)
    page.keyboard.press("l")
    poll(lambda: held, "the request for the record")
    held[0].continue_()
    poll(lambda: page.locator(".findings tbody tr").count(), "the findings, and with them the keys of verdicts")
    for key in ("Enter", *["ArrowRight"] * 10, "Enter"):
        page.keyboard.press(key)
    assert page.locator(".film-lengths text").text_content() == "8 px"
    assert image_id in page.url and site.reviews() == []


@pytest.mark.parametrize(
    ("elements", "unit"),
    [({}, "px"), ({"PixelSpacing": [0.2, 0.2]}, "mm"), ({"ImagerPixelSpacing": [0.2, 0.2]}, "mm (imager)")],
)
def test_lengths_have_the_unit_that_the_file_warrants(site: Site, elements: dict[str, Any], unit: str) -> None:
    page = open_study(site, site.upload(dicom.a_file(**elements)))
    for key in ("l", "Enter", *["ArrowRight"] * 10, "Enter"):  # a tenth of a film of 80 columns
        page.keyboard.press(key)
    assert page.locator(".film-lengths text").text_content() == ("8 px" if unit == "px" else f"1.6 {unit}")


def test_prior_is_looked_at_like_the_film_and_every_state_is_accessible(site: Site) -> None:
    same: dict[str, Any] = {"source": "nih", "patient_key": "p1"}
    site.upload(image(7, 300, 240), minutes=60, **same)
    current = site.upload(image(8, 300, 240), positives=("Mass",), **same)
    sizes: list[dict[str, Any]] = [{"width": 1440}, {"width": 390, "height": 844}]
    for size in sizes:
        page = open_study(site, current, **size)
        page.keyboard.press("b")
        page.locator(f"{SHOWN} >> nth=1").wait_for()
        page.keyboard.press("o")
        page.locator(".film-overlay").wait_for()
        assert find_violations(page) == []
        page.context.close()
