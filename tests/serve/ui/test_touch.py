"""Fingers on the film of a phone: one drags, two zoom about what is between them."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from playwright.sync_api import CDPSession, Page

from tests.serve.ui.site import Site, poll
from tests.serve.ui.test_viewer import BRIGHT, DARK, GREY, MIDDLE, NEAR, bounds, encoded, open_study, seen

PHONE: dict[str, Any] = {"width": 390, "height": 844, "touch": True}
SIDE = 200  # of a film with a bright square of a quarter of its side in the middle
Point = tuple[float, float]


def film() -> bytes:
    pixels = np.full((SIDE, SIDE), DARK, np.uint8)
    cv2.rectangle(pixels, (75, 75), (124, 124), BRIGHT, -1)
    return encoded(pixels)


def touch(hand: CDPSession, kind: str, *points: Point) -> None:
    fingers = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
    hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})


def drag(page: Page, begin: Sequence[Point], end: Sequence[Point], steps: int = 8) -> None:
    """Puts fingers down, moves them together, and lifts them."""
    hand = page.context.new_cdp_session(page)
    touch(hand, "touchStart", *begin)
    for step in range(1, steps + 1):
        part = step / steps
        touch(
            hand,
            "touchMove",
            *[(a + (c - a) * part, b + (d - b) * part) for (a, b), (c, d) in zip(begin, end, strict=True)],
        )
    touch(hand, "touchEnd")
    page.wait_for_timeout(300)


def square(page: Page) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the square on the screen, from the canvas's left top corner."""
    return bounds(seen(page)[..., 0] > MIDDLE)


def middle(page: Page) -> Point:
    area: Any = page.locator(".film-canvas").bounding_box()
    return area["x"] + area["width"] / 2, area["y"] + area["height"] / 2


def test_two_fingers_zoom_about_what_is_between_them(site: Site) -> None:
    page = open_study(site, site.upload(film()), **PHONE)
    (x, y), before = middle(page), square(page)
    drag(page, [(x - 20, y), (x + 20, y)], [(x - 40, y), (x + 40, y)])
    after, centre = square(page), (before[0] + before[2]) / 2
    assert abs((after[2] - after[0]) / (before[2] - before[0]) - 2) < 0.1, (before, after)
    assert abs((after[0] + after[2]) / 2 - centre) <= NEAR
    drag(page, [(x - 40, y), (x + 40, y)], [(x - 20, y), (x + 20, y)])
    assert np.abs(np.subtract(square(page), before)).max() <= NEAR, "and back"


def test_one_finger_drags_brightness_or_the_film(site: Site) -> None:
    page = open_study(site, site.upload(film()), **PHONE)
    (x, y), before = middle(page), square(page)
    bright = seen(page).max()
    drag(page, [(x, y)], [(x, y + 60)])
    assert seen(page).max() < bright - GREY, "down is darker"
    page.get_by_role("button", name="Reset").click()
    page.get_by_role("button", name="Move").click()
    poll(lambda: np.abs(np.subtract(square(page), before)).max() <= NEAR, "the film as it was")
    drag(page, [(x, y)], [(x + 60, y + 40)])
    moved = np.subtract(square(page), before)
    assert np.abs(moved - (60, 40, 60, 40)).max() <= NEAR, moved
    assert page.evaluate("scrollX + scrollY") == 0, "the page stays"
