"""What is drawn of a large film while its window is dragged. On real Chromium."""

import base64

import cv2
import numpy as np
from playwright.sync_api import Page

from tests.serve.ui.site import Site
from tests.serve.ui.test_viewer import GREY, MIDDLE, SHOWN, Pixels, bounds, open_study
from tests.support import dicom

NEAR = 2  # grey levels
# Drags the window's level up a little, and returns the last drawing of the drag and that of the film at rest.
DRAG = """async selector => {
    const element = document.querySelector(selector), canvas = element.querySelector('canvas'), drawn = [];
    const keep = () => drawn.push(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height));
    const send = (kind, clientY) =>
        element.dispatchEvent(new PointerEvent(kind, {clientX: 500, clientY, pointerId: 1}));
    element.setPointerCapture = () => undefined;  // there is no such pointer
    element.addEventListener('CORNERSTONE_IMAGE_RENDERED', keep);
    send('pointerdown', 450);
    for (let frame = 1; frame < 6; frame++) {
        send('pointermove', 450 - frame);
        await new Promise(requestAnimationFrame);
    }
    send('pointerup', 445);
    await new Promise(done => setTimeout(done, 500));
    element.removeEventListener('CORNERSTONE_IMAGE_RENDERED', keep);
    return drawn.slice(-2).map(picture => {
        const copy = Object.assign(document.createElement('canvas'), {width: picture.width, height: picture.height});
        copy.getContext('2d').putImageData(picture, 0, 0);
        return copy.toDataURL().split(',')[1];
    });
}"""


def test_draft_of_a_drag_is_the_film_with_fewer_pixels(site: Site) -> None:
    film = np.random.default_rng(1).integers(900, 1100, (2500, 2048), np.uint16)
    film[500:1500, 300:900] += 2000
    page = open_study(site, site.upload(dicom.a_file(film)))
    page.mouse.move(500, 400)
    for name, key in {"fit": "", "rotated": "r", "inverted": "i"}.items():
        if key:
            page.keyboard.press(key)
        draft, whole = drag_window(page)
        assert (draft != whole).any(), f"{name}: no draft"
        assert abs(np.subtract(draft, whole, dtype=float).mean()) < 0.5, name
        # Inverted, the box is dark on a bright film, and black is what lies around it.
        box, other = (one > MIDDLE if key != "i" else (one > GREY) & (one < MIDDLE) for one in (draft, whole))
        assert np.abs(np.subtract(bounds(box), bounds(other))).max() <= 1, name
    page.mouse.wheel(0, -900)
    draft, whole = drag_window(page)
    assert np.ptp(whole) > MIDDLE and np.ptp(np.subtract(draft, whole, dtype=float)) <= NEAR, "a pixel is left out"


def drag_window(page: Page) -> tuple[Pixels, Pixels]:
    """The film as last drawn while its window is dragged, and as drawn at rest, by the same window."""
    page.wait_for_timeout(300)
    pictures = [np.frombuffer(base64.b64decode(png), np.uint8) for png in page.evaluate(DRAG, SHOWN)]
    draft, whole = (np.asarray(cv2.imdecode(one, cv2.IMREAD_GRAYSCALE), np.uint8) for one in pictures)
    return draft, whole
