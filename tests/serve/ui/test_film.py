"""The film in a real browser: the endpoint's own pixels, overlays where they belong, and films that cannot be shown."""

import io
from pathlib import Path

import cv2
import gdcm
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page

from chestai.imaging.preprocess import Grey, decode
from serve.db.models import PredictionRow
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.ui.site import Site, poll
from tests.support.dicom import a_file, compressed

SYNTAXES = {
    "JPEG Lossless": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "JPEG-LS": gdcm.TransferSyntax.JPEGLSLossless,
    "JPEG 2000": gdcm.TransferSyntax.JPEG2000Lossless,
    "RLE": gdcm.TransferSyntax.RLELossless,
}
FILM = cv2.resize(make_films()[3], (320, 256), interpolation=cv2.INTER_CUBIC)
OTHERS = ("JPEG", "plain", "MONOCHROME1", *SYNTAXES)
MAX_OFFSET = 2  # pixels of the screen


def make_dicom(folder: Path, kind: str) -> bytes:
    twelve = FILM.astype(np.uint16) * 16
    if kind == "MONOCHROME1":
        return a_file((4080 - twelve).astype(np.uint16), 12, PhotometricInterpretation="MONOCHROME1", PatientID="7")
    plain = a_file(twelve, 12, PatientID="7")
    return plain if kind == "plain" else compressed(folder, plain, SYNTAXES[kind])


def make_picture(folder: Path, kind: str) -> bytes:
    return (
        encode_image(FILM, ".png" if kind == "PNG" else ".jpg") if kind in ("PNG", "JPEG") else make_dicom(folder, kind)
    )


def open_study(site: Site, image_id: str, query: str = "?renderer=cpu") -> Page:
    page = site.open(f"/ui/studies/{image_id}{query}")
    page.locator(".film-canvas[data-shown=true]").wait_for()
    return page


def read_film(page: Page) -> Grey:
    """Returns what the browser shows of the film."""
    shot = page.locator(".film-canvas").first.screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("L"))


@pytest.mark.parametrize("kind", ["PNG", *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS)])
def test_film_is_shown_as_the_endpoint_decodes_it(site: Site, tmp_path: Path, kind: str) -> None:
    data = make_picture(tmp_path, kind)
    page = open_study(site, site.upload(data))
    poll(lambda: read_film(page).max() > 100, "a film that is not black")
    shown, wanted = read_film(page), decode(data)
    scale = min(np.array(shown.shape) / wanted.shape)
    height, width = (round(side * scale) for side in wanted.shape)
    top, left = (shown.shape[0] - height) // 2, (shown.shape[1] - width) // 2
    small = [
        cv2.resize(picture, (160, 128), interpolation=cv2.INTER_AREA).ravel()
        for picture in (shown[top : top + height, left : left + width], wanted)
    ]
    assert np.corrcoef(*small)[0, 1] > 0.995


def test_film_that_cannot_be_shown_says_why(site: Site, tmp_path: Path) -> None:
    image_id = site.upload(encode_image(FILM))
    file = tmp_path / "lake" / "kept" / image_id[:2] / image_id
    file.write_bytes(b"damaged")
    page = site.open(f"/ui/studies/{image_id}")
    poll(lambda: "has changed" in page.inner_text("section.stage"), "the reason")
    assert page.locator(".film-canvas[data-shown=true]").count() == 0
    assert "Mass" in page.inner_text("aside"), "what is known is shown all the same"


def test_film_that_was_not_kept_says_so(site: Site, tmp_path: Path) -> None:
    image_id = site.upload(encode_image(FILM), uri=None)
    page = site.open(f"/ui/studies/{image_id}")
    poll(lambda: "not kept" in page.inner_text("section.stage"), "the reason")


BOX = (0.55, 0.20, 0.80, 0.35)  # left, top, right, bottom, in parts of the film


def draw_box(height: int, width: int) -> NDArray[np.uint8]:
    picture = np.zeros((height, width), np.uint8)
    left, top, across, down = BOX
    picture[
        round(top * height) : round((top + down) * height), round(left * width) : round((left + across) * width)
    ] = 255
    return picture


def find_corners(mask: NDArray[np.bool_]) -> NDArray[np.int_]:
    """Returns left, top, right and bottom of what is set in a picture."""
    ys, xs = np.nonzero(mask)
    assert len(ys), "nothing is shown"
    return np.array([xs.min(), ys.min(), xs.max(), ys.max()])


def read_overlay(page: Page) -> NDArray[np.bool_]:
    """Returns where the overlay has colour, in pixels of the screen."""
    alpha = page.locator("canvas.film-overlay").evaluate(
        "canvas => { const {width, height} = canvas;"
        "const {data} = canvas.getContext('2d').getImageData(0, 0, width, height);"
        "return [width, height, Array.from(data.filter((_, at) => at % 4 === 3))]; }"
    )
    return np.array(alpha[2], np.uint8).reshape(alpha[1], alpha[0]) > 20


STEPS = {
    "fit": [],
    "zoom": ["+", "+"],
    "pan": ["+", "ArrowLeft", "ArrowDown"],
    "rotation": ["r"],
    "all": ["r", "r", "r", "+", "ArrowUp"],
}


@pytest.mark.parametrize("steps", [*(pytest.param(name, marks=pytest.mark.slow) for name in [*STEPS][:-1]), "all"])
@pytest.mark.parametrize("renderer", ["?renderer=cpu", pytest.param("", marks=pytest.mark.slow)])
def test_overlay_lies_where_the_finding_is(site: Site, renderer: str, steps: str) -> None:
    """The film is a bright box on black, and so is its map: both must be seen at the same place."""
    image_id = site.upload(encode_image(np.maximum(draw_box(400, 640), 8)), positives=("Mass",))
    page = site.open("/ui/")
    png = encode_image(draw_box(400, 640))
    headers = {"X-Model-Version": "1"}
    page.route("**/map?*", lambda route: route.fulfill(body=png, content_type="image/png", headers=headers))
    page.goto(f"{site.url}/ui/studies/{image_id}{renderer}")
    page.locator(".film-canvas[data-shown=true]").wait_for()
    for key in STEPS[steps]:
        page.keyboard.press(key)
    poll(lambda: read_film(page).max() > 200, "the film")
    film = find_corners(read_film(page) > 128)
    page.keyboard.press("o")
    page.locator("canvas.film-overlay").wait_for()
    poll(lambda: read_overlay(page).any(), "the overlay")
    assert np.abs(find_corners(read_overlay(page)) - film).max() <= MAX_OFFSET
    page.keyboard.press("i")
    page.wait_for_timeout(200)
    assert np.abs(find_corners(read_overlay(page)) - film).max() <= MAX_OFFSET, "inverting moves nothing"


def test_overlay_is_off_until_asked_for_and_needs_a_positive_finding(site: Site) -> None:
    positive = site.upload(encode_image(make_films()[3]), positives=("Mass",))
    negative = site.upload(encode_image(make_films()[4]))
    with site.services.state.store.database.write_session() as session:
        session.get_one(PredictionRow, (negative, 1)).positives = []
    page = open_study(site, positive)
    assert page.locator("canvas.film-overlay").count() == 0
    page.keyboard.press("o")
    page.locator("canvas.film-overlay").wait_for()
    page.goto(f"{site.url}/ui/studies/{negative}")
    page.locator(".film-canvas[data-shown=true]").wait_for()
    assert page.get_by_role("button", name="Overlay").is_disabled()
