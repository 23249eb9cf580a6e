"""Draws an entry of the plan: build, findings, positioning, exposure and noise."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from chestai.labels.findings import NIH14
from chestai.phantom.anatomy import Film, draw_normal_film
from chestai.phantom.lesions import ANYWHERE, BUILD_CHANGES, LESIONS, SITES, Site
from chestai.phantom.roster import PhantomImage
from chestai.phantom.thorax import Array, sample_thorax

Box = tuple[float, float, float, float]

# Each random aspect has its own stream, so that removing a finding leaves the rest of the image unchanged.
# The stream's number comes first because numpy treats [a, b] and [a, b, 0] as the same seed. The plan uses 1 and 2.
_PATIENT, _MARKINGS, _POSITION, _EXPOSURE, _NOISE, _SITES, _BUILD, _LESION = range(3, 11)


def draw(image: PhantomImage) -> tuple[NDArray[np.uint8], dict[str, Box]]:
    """Draws an entry.

    Returns:
        Pixels `uint8 (size, size)` with bone white, and for each finding its box (x, y, w, h) in those pixels.
    """
    scale = 2 if image.size <= 256 else 1  # drawing small films at twice the size keeps thin structures
    film, shown = _draw_film(image, image.size * scale)
    position = _sample_position(image, film.pixels)
    grey = _expose(image, _apply_position(film.attenuation(), position, image.size))
    boxes = {finding: _find_box(_apply_position(where, position, image.size)) for finding, where in shown.items()}
    mark = _draw_mark(image.size)
    grey[: mark.shape[0], : mark.shape[1]] = mark
    return grey, boxes


def _random_stream(image: PhantomImage, stream: int, *more: int) -> np.random.Generator:
    """Returns the random generator of one aspect of an image."""
    return np.random.default_rng([stream, image.seed, image.patient_id, image.drawn_as, *more])


def _draw_film(image: PhantomImage, pixels: int) -> tuple[Film, dict[str, Array]]:
    """Draws the film with its findings; returns it with the area that each finding shows in."""
    build_rng, markings_rng = (
        np.random.default_rng([stream, image.seed, image.patient_id]) for stream in (_PATIENT, _MARKINGS)
    )
    build = sample_thorax(build_rng)
    sites = _choose_sites(image)
    for finding, change in BUILD_CHANGES.items():
        if finding in image.findings:
            build = change(build, sites[finding], _random_stream(image, _BUILD, NIH14.index(finding)))
    film = draw_normal_film(build, pixels, image.view, markings_rng)
    shown = {
        finding: LESIONS[finding](film, sites[finding], _random_stream(image, _LESION, NIH14.index(finding)))
        for finding in image.findings
    }
    return film, shown


def _choose_sites(image: PhantomImage) -> dict[str, Site]:
    """Chooses a site for each finding, apart from the others where possible, so that none hides another."""
    rng = _random_stream(image, _SITES)
    orders = {finding: rng.permutation(len(SITES.get(finding, ANYWHERE))) for finding in NIH14}
    chosen: dict[str, Site] = {}
    for finding in sorted(image.findings, key=lambda name: len(SITES.get(name, ANYWHERE))):
        options = [SITES.get(finding, ANYWHERE)[index] for index in orders[finding]]
        located = [site for other, site in chosen.items() if other in SITES]
        clashes = [sum((site.side == other.side) + (site == other) for other in located) for site in options]
        chosen[finding] = options[int(np.argmin(clashes))]
    return chosen


def _sample_position(image: PhantomImage, pixels: int) -> Array:
    """Samples the patient's position before the detector, as a 2x3 affine map on film pixels."""
    rng = _random_stream(image, _POSITION)
    sloppy = 1.5 if image.view == "AP" else 1.0
    centre, angle, zoom = (pixels / 2, pixels / 2), sloppy * rng.normal(0, 1.3), rng.uniform(0.93, 1.07)
    shift = np.clip(sloppy * rng.normal(0, 0.012, 2), -0.035, 0.035) * pixels
    return cv2.getRotationMatrix2D(centre, angle, zoom) + np.column_stack([np.zeros((2, 2)), shift])


def _apply_position(layer: Array, position: Array, size: int) -> Array:
    """Moves a layer to the patient's position and averages it down to `size` pixels a side."""
    placed = cv2.warpAffine(layer.astype(np.float32), position, layer.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    if placed.shape[0] == size:
        return placed
    return cv2.resize(placed, (size, size), interpolation=cv2.INTER_AREA)


def _expose(image: PhantomImage, attenuation: Array) -> Array:
    """Converts attenuation to grey values, with scatter and quantum noise. AP films are flatter and noisier."""
    rng, noise_rng = _random_stream(image, _EXPOSURE), _random_stream(image, _NOISE)
    portable = image.view == "AP"
    black = rng.uniform(0.0, 0.08) - 0.1 * portable * rng.random()
    white = rng.uniform(1.16, 1.3) + 0.1 * portable * rng.random()
    gamma = rng.uniform(0.85, 1.2)
    noise = rng.uniform(0.006, 0.014) * (1.6 if portable else 1.0)
    size = image.size
    grain = noise_rng.standard_normal((size, size), np.float32)
    shading = cv2.resize(
        noise_rng.normal(0, 0.02, (4, 4)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC
    )
    level = np.clip((attenuation + shading - black) / (white - black), 0, 1) ** np.float32(gamma)
    level = level + np.float32(noise) * grain * (0.4 + level)
    return np.clip(np.round(255 * level), 0, 255).astype(np.uint8)


def _find_box(where: Array) -> Box:
    """Finds the box around the pixels above 35 % of the maximum."""
    x, y, w, h = cv2.boundingRect((where > 0.35 * where.max()).astype(np.uint8))
    return float(x), float(y), float(w), float(h)


@lru_cache(maxsize=4)
def _draw_mark(size: int) -> Array:
    """Draws the word SYNTHETIC on black, the same for every film of this size."""
    height = 24
    (width, _), _ = cv2.getTextSize("SYNTHETIC", cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)
    plate = np.zeros((height, width + 8), np.uint8)
    cv2.putText(plate, "SYNTHETIC", (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 230, 2, cv2.LINE_AA)
    wanted = max(8, round(0.055 * size))
    return cv2.resize(plate, (round(plate.shape[1] * wanted / height), wanted), interpolation=cv2.INTER_AREA)
