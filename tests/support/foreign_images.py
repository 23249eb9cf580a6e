"""Images that are no frontal chest radiographs, made by code; an OOD detector must reject them."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Field = NDArray[np.float64]
Rng = np.random.Generator


def _grey(field: Field | NDArray[np.float32]) -> Image:
    """Any values, stretched to the full scale."""
    low, high = float(field.min()), float(field.max())
    return np.rint(255 * (field - low) / max(high - low, 1e-9)).astype(np.uint8)


def _power_law(size: int, slope: float, rng: Rng) -> Field:
    """Noise whose amplitude falls as frequency ** -slope."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij"))
    frequency[0, 0] = 1.0
    spectrum = (rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)) / frequency**slope
    spectrum[0, 0] = 0
    return np.fft.irfft2(spectrum, s=(size, size))


def _grid(size: int) -> tuple[Field, Field]:
    """y and x of each pixel's centre, in parts of the side."""
    axis = (np.arange(size) + 0.5) / size
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return y, x


def _ellipse(size: int, cy: float, cx: float, ry: float, rx: float, soft: float = 0.08) -> Field:
    y, x = _grid(size)
    radius = np.hypot((y - cy) / ry, (x - cx) / rx)
    return np.clip((1 - radius) / soft + 0.5, 0, 1)


def fur(film: Image, rng: Rng) -> Image:
    """A cat, from afar: striped hair, a head with ears and eyes."""
    size = len(film)
    hair = cv2.blur(rng.normal(size=(size, size)), (max(2, size // 40), max(4, size // 10)))
    stripes = np.sin(2 * np.pi * (_grid(size)[1] * rng.uniform(4, 9) + 0.4 * _power_law(size, 1.5, rng)))
    head = 0.5 * _ellipse(size, 0.55, 0.5, 0.33, 0.36)
    for side in (-1, 1):
        head += 0.5 * _ellipse(size, 0.22, 0.5 + 0.22 * side, 0.14, 0.08)
        head -= 0.9 * _ellipse(size, 0.48, 0.5 + 0.14 * side, 0.05, 0.06)
    return _grey(hair / hair.std() * 0.15 + 0.15 * stripes + rng.choice([-1.0, 1.0]) * head)


def natural(film: Image, rng: Rng) -> Image:
    """The spectrum of photographs of nature, amplitude 1 / f (Field 1987)."""
    return _grey(_power_law(len(film), 1.0, rng))


def clouds(film: Image, rng: Rng) -> Image:
    """The same, smoother."""
    return _grey(_power_law(len(film), 1.8, rng))


def white_noise(film: Image, rng: Rng) -> Image:
    return rng.integers(0, 256, film.shape, dtype=np.uint8)


def flat(film: Image, rng: Rng) -> Image:
    return np.full_like(film, rng.integers(0, 256))


def gradient(film: Image, rng: Rng) -> Image:
    y, x = _grid(len(film))
    angle = rng.uniform(0, 2 * np.pi)
    return _grey(np.cos(angle) * x + np.sin(angle) * y)


def vignette(film: Image, rng: Rng) -> Image:
    """A round gradient, bright in the middle or dark there."""
    size = len(film)
    y, x = _grid(size)
    return _grey(rng.choice([-1.0, 1.0]) * np.hypot(y - rng.uniform(0.3, 0.7), x - rng.uniform(0.3, 0.7)))


def checkerboard(film: Image, rng: Rng) -> Image:
    y, x = _grid(len(film))
    cells = rng.integers(2, 12)
    return (255 * ((np.floor(y * cells) + np.floor(x * cells)) % 2)).astype(np.uint8)


def _write(page: Image, box: tuple[int, int, int, int], ink: int, rng: Rng) -> None:
    """Lines of words within left, top, right, bottom."""
    left, top, right, bottom = box
    height = max(5, len(page) // 28)
    for line in range(top + height, bottom, round(1.7 * height)):
        words = "".join(rng.choice(list("abcdefghiklmnoprstu   "), rng.integers(12, 60)))
        clipped = page[:, left:right].copy()
        cv2.putText(clipped, words, (0, line), cv2.FONT_HERSHEY_SIMPLEX, height / 30, ink, 1, cv2.LINE_AA)
        page[:, left:right] = clipped


def document(film: Image, rng: Rng) -> Image:
    size = len(film)
    page = np.full_like(film, 245)
    _write(page, (size // 10, size // 12, size - size // 10, size - size // 12), 20, rng)
    return page


def screenshot(film: Image, rng: Rng) -> Image:
    """Windows, bars and text."""
    size = len(film)
    page = np.full_like(film, rng.integers(150, 256))
    for _ in range(rng.integers(4, 10)):
        top, left = rng.integers(0, int(0.8 * size), 2)
        height, width = rng.integers(size // 10, size // 2, 2)
        page[top : top + height, left : left + width] = rng.integers(0, 256)
    page[: size // 14] = rng.integers(0, 120)
    _write(page, (size // 8, size // 5, size, size - size // 6), int(rng.integers(0, 256)), rng)
    return page


def blobs(film: Image, rng: Rng) -> Image:
    """Things out of focus."""
    size = len(film)
    scene = np.full((size, size), rng.uniform(0, 1))
    for _ in range(rng.integers(3, 9)):
        (cy, cx), (ry, rx) = rng.uniform(0, 1, 2), rng.uniform(0.1, 0.4, 2)
        where = _ellipse(size, cy, cx, ry, rx, rng.uniform(0.1, 1.0))
        scene += where * (rng.uniform(0, 1) - scene)
    return _grey(scene)


def face(film: Image, rng: Rng) -> Image:
    """A portrait photograph's coarse layout."""
    size = len(film)
    y, _ = _grid(size)
    scene = 0.3 * y + 0.1 * _power_law(size, 1.2, rng) / 3
    scene += (0.9 - scene) * _ellipse(size, 0.45, 0.5, 0.32, 0.23)
    scene += (0.6 - scene) * _ellipse(size, 1.05, 0.5, 0.28, 0.45)
    scene -= 0.6 * _ellipse(size, 0.18, 0.5, 0.12, 0.25)
    for side in (-1, 1):
        scene -= 0.5 * _ellipse(size, 0.4, 0.5 + 0.09 * side, 0.025, 0.045)
    return _grey(scene - 0.4 * _ellipse(size, 0.62, 0.5, 0.03, 0.08))


def landscape(film: Image, rng: Rng) -> Image:
    """Sky over land."""
    size = len(film)
    y, x = _grid(size)
    horizon = rng.uniform(0.35, 0.65) + 0.03 * np.sin(2 * np.pi * (x * rng.uniform(1, 3) + rng.uniform()))
    land = _power_law(size, 1.0, rng)
    return _grey(np.where(y < horizon, 0.85 - 0.3 * y, 0.35 + 0.1 * land / land.std()))


def inverted(film: Image, rng: Rng) -> Image:
    """As where MONOCHROME1 is taken for MONOCHROME2."""
    return 255 - film


def upside_down(film: Image, rng: Rng) -> Image:
    return np.ascontiguousarray(film[::-1])


def turned(film: Image, rng: Rng) -> Image:
    """By 90 degrees, either way."""
    return np.ascontiguousarray(np.rot90(film, rng.choice([1, 3])))


def detail(film: Image, rng: Rng) -> Image:
    """A quarter of the side or somewhat more of it, enlarged."""
    size = len(film)
    side = round(size * rng.uniform(0.22, 0.33))
    top, left = rng.integers(0, size - side, 2)
    return cv2.resize(film[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_LINEAR).astype(
        np.uint8
    )


def lateral(film: Image, rng: Rng) -> Image:
    """The silhouette of a chest from the side: spine behind, heart and breastbone in front, one dark lung field."""
    size = len(film)
    side = rng.choice([-1, 1])
    scene = 0.75 * _ellipse(size, 0.55, 0.5, 0.75, 0.36, 0.15)
    scene -= 0.55 * _ellipse(size, 0.42, 0.5 + 0.02 * side, 0.33, 0.2, 0.5)
    y, x = _grid(size)
    column = np.clip(1 - np.abs(x - (0.5 - 0.24 * side - 0.05 * side * np.sin(3 * y))) / 0.07, 0, 1)
    scene += 0.35 * column * (0.7 + 0.3 * np.sin(2 * np.pi * y * 11))
    scene += 0.35 * _ellipse(size, 0.58, 0.5 + 0.14 * side, 0.16, 0.14, 0.5)
    scene += 0.4 * _ellipse(size, 0.98, 0.5, 0.3, 0.36, 0.3)
    return _grey(np.clip(scene + rng.normal(0, 0.015, scene.shape), 0, 1))


def hand(film: Image, rng: Rng) -> Image:
    """Bright bones of a hand on black."""
    size = len(film)
    tissue, bones = np.zeros((2, size, size), np.float32)
    palm = (size // 2, round(0.75 * size))
    cv2.circle(tissue, palm, round(0.16 * size), 0.45, -1)
    for number, angle in enumerate(np.deg2rad([-42, -18, 0, 16, 34]) + rng.normal(0, 0.04)):
        way, reach = np.array([np.sin(angle), -np.cos(angle)]), (0.3, 0.5, 0.55, 0.52, 0.42)[number]
        for along in np.arange(0.04, reach, 0.12):
            start, end = (tuple(int(one) for one in palm + size * part * way) for part in (along, along + 0.1))
            cv2.line(tissue, start, end, 0.45, max(2, round(0.08 * size)))
            cv2.line(bones, start, end, 0.9, max(1, round(0.03 * size)))
    return _grey(cv2.GaussianBlur(np.maximum(tissue, bones), (0, 0), 0.006 * size).astype(np.float32))


def limb(film: Image, rng: Rng) -> Image:
    """A long bone in its soft tissue, on black."""
    size = len(film)
    y, x = _grid(size)
    angle = rng.normal(0, 0.15)
    across = np.abs((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle))
    tissue = np.clip((rng.uniform(0.17, 0.24) - across) / 0.05, 0, 1)
    bone = np.clip((0.065 + 0.06 * (2 * np.abs(y - 0.5)) ** 4 - across) / 0.02, 0, 1)
    return _grey(0.4 * tissue + 0.5 * bone - 0.15 * np.clip((0.025 - across) / 0.01, 0, 1) * bone)


def skull(film: Image, rng: Rng) -> Image:
    """A head from the front on black: a bright ring, orbits, jaw."""
    size = len(film)
    scene = 0.8 * _ellipse(size, 0.45, 0.5, 0.42, 0.34) - 0.3 * _ellipse(size, 0.42, 0.5, 0.36, 0.28, 0.2)
    scene = np.maximum(scene, 0.6 * _ellipse(size, 0.8, 0.5, 0.18, 0.2, 0.3))
    for side in (-1, 1):
        scene -= 0.3 * _ellipse(size, 0.52, 0.5 + 0.14 * side, 0.07, 0.08, 0.3)
    return _grey(np.clip(scene + rng.normal(0, 0.01, scene.shape), 0, 1))


def pair(film: Image, rng: Rng) -> Image:
    """Two films side by side, as a 2:1 image is fitted into the square."""
    size = len(film)
    half = cv2.resize(film, (size // 2, size // 2), interpolation=cv2.INTER_AREA)
    page = np.zeros_like(film)
    page[size // 4 : size // 4 + size // 2, : 2 * (size // 2)] = np.hstack([half, half[:, ::-1]])
    return page


def tiles(film: Image, rng: Rng) -> Image:
    """Four mirrored copies."""
    size = len(film)
    part = cv2.resize(film, (size // 2, size // 2), interpolation=cv2.INTER_AREA)
    both = np.hstack([part, part[:, ::-1]])
    return cv2.resize(np.vstack([both, both[::-1]]), (size, size)).astype(np.uint8)


def on_a_page(film: Image, rng: Rng) -> Image:
    """A film that takes a small part of a bright page, with text."""
    size = len(film)
    page = np.full_like(film, 240)
    side = size // 3
    top, left = rng.integers(0, size - side, 2)
    _write(page, (size // 12, size // 12, size - size // 12, size - size // 12), 30, rng)
    page[top : top + side, left : left + side] = cv2.resize(film, (side, side), interpolation=cv2.INTER_AREA)
    return page


def shuffled(film: Image, rng: Rng) -> Image:
    """A film in 4 x 4 pieces, mixed."""
    step = len(film) // 4
    pieces = [film[y * step : (y + 1) * step, x * step : (x + 1) * step] for y in range(4) for x in range(4)]
    order = rng.permutation(16)
    rows = [np.hstack([pieces[order[4 * y + x]] for x in range(4)]) for y in range(4)]
    return cv2.resize(np.vstack(rows), (len(film), len(film))).astype(np.uint8)


KINDS: dict[str, Callable[[Image, Rng], Image]] = {
    one.__name__: one
    for one in (
        *(fur, natural, clouds, white_noise, flat, gradient, vignette, checkerboard, document, screenshot, blobs),
        *(face, landscape, inverted, upside_down, turned, detail, lateral, hand, limb, skull, pair, tiles),
        *(on_a_page, shuffled),
    )
}


def make_foreign_images(kind: str, films: NDArray[np.uint8], seed: int = 0) -> NDArray[np.uint8]:
    """One image of a kind for each film, which some kinds are made from: uint8 (N, S, S)."""
    return np.stack([KINDS[kind](film, np.random.default_rng([seed, at])) for at, film in enumerate(films)])
