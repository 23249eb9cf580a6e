"""The 14 findings, as functions that change a film and return the area `(pixels, pixels)` in which the finding shows.

A finding that changes the build itself (heart size, diaphragm height) also has an entry in `BUILD_CHANGES`, which is
applied before the film is drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from chestai.phantom.anatomy import Film, rounded_depth
from chestai.phantom.shapes import draw_strokes, fill_air, lung_mask, smooth_noise, squared_distance
from chestai.phantom.thorax import LEFT, RIGHT, SIDES, Array, Thorax


@dataclass(frozen=True)
class Site:
    """A site in the lungs: `side` is RIGHT or LEFT, `zone` is "upper", "mid" or "lower"."""

    side: int
    zone: str


UPPER, MID, LOWER = ([Site(side, zone) for side in SIDES] for zone in ("upper", "mid", "lower"))
ANYWHERE = UPPER + MID + LOWER

# The possible sites of each finding. Anatomy fixes the position of all others.
SITES: dict[str, list[Site]] = {
    "Atelectasis": LOWER,
    "Effusion": LOWER,
    "Pneumothorax": UPPER,
    "Consolidation": UPPER + LOWER,
    "Pneumonia": MID + LOWER,
    "Infiltration": UPPER + MID,
    "Pleural_Thickening": MID,
    "Nodule": ANYWHERE,
    "Mass": ANYWHERE,
}
_ZONE_DEPTHS = {"upper": (0.2, 0.36), "mid": (0.42, 0.62), "lower": (0.68, 0.88)}


def enlarge_heart(thorax: Thorax, site: Site, rng: np.random.Generator) -> Thorax:
    """Cardiomegaly: raises the cardiothoracic ratio above 0.5."""
    return replace(thorax, cardiothoracic_ratio=rng.uniform(0.55, 0.68))


def hyperinflate(thorax: Thorax, site: Site, rng: np.random.Generator) -> Thorax:
    """Emphysema: lowers and flattens the diaphragms, adds air, thins the vessels and narrows the heart."""
    drop = rng.uniform(0.06, 0.1)
    return replace(
        thorax,
        dome=(thorax.dome[0] + drop, thorax.dome[1] + drop),
        arch=thorax.arch * rng.uniform(0.3, 0.5),
        cardiothoracic_ratio=rng.uniform(0.31, 0.36),
        aeration=thorax.aeration * rng.uniform(1.12, 1.22),
        markings=thorax.markings * rng.uniform(0.4, 0.6),
    )


def raise_dome(thorax: Thorax, site: Site, rng: np.random.Generator) -> Thorax:
    """Atelectasis: raises the hemidiaphragm on its side, because the lung has lost volume."""
    lift = rng.uniform(0.045, 0.085)
    right, left = thorax.dome
    return replace(thorax, dome=(right - lift, left) if site.side == RIGHT else (right, left - lift))


BUILD_CHANGES: dict[str, Callable[[Thorax, Site, np.random.Generator], Thorax]] = {
    "Emphysema": hyperinflate,
    "Cardiomegaly": enlarge_heart,
    "Atelectasis": raise_dome,
}


def add_atelectasis(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Adds two or three plate-like bands above the diaphragm."""
    shown = np.zeros_like(film.fill)
    down = rng.uniform(0.72, 0.8)
    for _ in range(rng.integers(2, 4)):
        x, y = film.thorax.point(site.side, rng.uniform(0.4, 0.65), down)
        down += rng.uniform(0.07, 0.1)
        tilt = -site.side * np.deg2rad(rng.uniform(-8, 22))
        along = (film.x - x) * np.cos(tilt) + (film.y - y) * np.sin(tilt)
        across = (film.y - y) * np.cos(tilt) - (film.x - x) * np.sin(tilt)
        half_length, half_width = rng.uniform(0.06, 0.11), rng.uniform(0.006, 0.011)
        taper = rounded_depth(half_length - np.abs(along), half_length)
        band = np.clip(1.7 - np.abs(across + 1.5 * along**2) / (half_width * (0.4 + 0.6 * taper)), 0, 1) * taper
        shown = np.maximum(shown, band)
    fill_air(film, shown, rng.uniform(0.65, 0.9))
    return shown * lung_mask(film, site.side)


def locate_cardiomegaly(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Returns the whole heart shadow; `enlarge_heart` has already changed the build."""
    thorax = film.thorax
    right, left = (thorax.heart_border(side, film.y) for side in SIDES)
    heart = (film.x > -right) & (film.x < left)
    top = thorax.apex + 0.42 * (thorax.dome[0] - thorax.apex)
    return (heart & (film.y > top) & (film.y < max(thorax.dome) + 0.2 * thorax.arch)).astype(np.float32)


def add_effusion(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Adds basal fluid whose surface climbs the wall in a meniscus and blunts the costophrenic angle."""
    thorax, u = film.thorax, site.side * film.x
    depth = rng.uniform(0.04, 0.24)
    climb = np.clip(u / thorax.half_width, 0, 1) ** 3.5 * rng.uniform(0.08, 0.14)
    surface = thorax.dome_of(site.side) + 0.03 - depth - climb
    fluid = np.clip((film.y - surface) / 0.02, 0, 1)
    shown = fluid * lung_mask(film, site.side)
    fill_air(film, shown, rng.uniform(0.9, 1.0))
    return shown


def add_infiltration(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Adds many small ill-defined patches to the upper and middle zones of one or both lungs."""
    sides = SIDES if rng.random() < 0.5 else (site.side,)
    shown = np.zeros_like(film.fill)
    for side in sides:
        for _ in range(rng.integers(9, 14)):
            x, y = film.thorax.point(side, rng.uniform(0.15, 0.85), rng.uniform(0.2, 0.72))
            radius = rng.uniform(0.017, 0.03)
            shown = np.maximum(shown, rng.uniform(0.7, 1.0) * np.exp(-squared_distance(film, x, y, radius, radius)))
    shown = shown * np.clip(0.75 + 0.35 * smooth_noise(film, rng, 40), 0, 1)
    fill_air(film, shown, rng.uniform(0.7, 0.9))
    return shown * (lung_mask(film, LEFT) + lung_mask(film, RIGHT))


def add_mass(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Adds a dense lobulated mass of 36 to 74 mm."""
    radius = rng.uniform(18, 37) / film.thorax.field_mm
    return _add_sphere(film, site, rng, radius, lobes=0.13, strength=rng.uniform(0.85, 1.0))


def add_nodule(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Adds a round nodule of 18 to 29 mm."""
    radius = rng.uniform(9, 14.5) / film.thorax.field_mm
    return _add_sphere(film, site, rng, radius, lobes=0.06, strength=rng.uniform(0.75, 0.95))


def add_pneumonia(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Adds one soft segmental opacity without a border."""
    x, y = film.thorax.point(site.side, rng.uniform(0.35, 0.6), rng.uniform(*_ZONE_DEPTHS[site.zone]))
    spread = squared_distance(film, x, y, rng.uniform(0.085, 0.12), rng.uniform(0.075, 0.1))
    shown = np.exp(-spread) * np.clip(0.9 + 0.2 * smooth_noise(film, rng, 14), 0, 1.1)
    fill_air(film, shown, rng.uniform(0.7, 0.9))
    return shown * lung_mask(film, site.side)


def add_pneumothorax(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Adds a lucent rim without markings at apex and side, bounded by the thin line of the visceral pleura."""
    thorax, side = film.thorax, site.side
    drop, inset = rng.uniform(0.04, 0.1), rng.uniform(0.05, 0.12)
    fading = np.clip(1.15 - (film.y - thorax.apex) / (thorax.dome_of(side) - thorax.apex), 0, 1)
    inside = thorax.wall(film.y - drop) - inset * fading - side * film.x
    aerated = lung_mask(film, side)
    rim = np.clip(0.5 - inside / 0.006, 0, 1) * aerated
    pleura = np.clip(1.5 - np.abs(inside) / 0.004, 0, 1) * aerated
    film.vessels = film.vessels * (1 - rim)
    collapsed = np.clip(0.5 + inside / 0.006, 0, 1) * aerated
    film.extra = film.extra - 0.13 * rim + 0.17 * pleura + 0.06 * collapsed
    return rim


def add_consolidation(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Makes a lobe dense up to a sharp fissure, with dark branching bronchi inside."""
    thorax, side = film.thorax, site.side
    u = side * film.x
    slope = rng.uniform(-0.15, 0.15) if site.zone == "upper" else rng.uniform(0.35, 0.7)
    down = rng.uniform(0.38, 0.5) if site.zone == "upper" else rng.uniform(0.5, 0.58)
    _, fissure = thorax.point(side, 0.5, down)
    below = film.y - fissure - slope * (u - 0.5 * thorax.half_width)
    if site.zone == "upper":
        lobe = np.clip(0.5 - below / 0.008, 0, 1)
    else:
        # The lower lobe stops short of the costophrenic angle, which stays sharp, unlike in an effusion.
        lobe = np.clip(0.5 + below / 0.008, 0, 1) * np.clip((0.86 * thorax.half_width - u) / 0.09, 0, 1)
    bronchi = np.zeros_like(film.fill)
    away = -1 if site.zone == "upper" else 1
    start, width = np.tile(thorax.point(side, 0.05, 0.5), (4, 1)), 0.009
    angles = np.deg2rad(np.linspace(10, 75, 4) + rng.uniform(-6, 6, 4))
    for _ in range(3):
        angles, width = angles + np.deg2rad(rng.uniform(-14, 14, 4)), width * 0.75
        end = start + 0.055 * np.column_stack([side * np.cos(angles), away * np.sin(angles)])
        bronchi = np.maximum(bronchi, draw_strokes(film, start, end, width))
        start = end
    shown = lobe * lung_mask(film, side)
    fill_air(film, shown * (1 - 0.4 * bronchi), rng.uniform(0.85, 0.97))
    return shown


def add_edema(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Adds a bat-wing opacity around both hila that spares the periphery, and Kerley B lines at the bases."""
    shown, strength = np.zeros_like(film.fill), rng.uniform(0.6, 0.85)
    mottle = np.clip(0.85 + 0.3 * smooth_noise(film, rng, 18), 0, 1.1)
    lines = np.zeros_like(film.fill)
    for side in SIDES:
        x, y = film.thorax.point(side, 0.25, rng.uniform(0.5, 0.58))
        wing = np.exp(-(squared_distance(film, x, y, rng.uniform(0.09, 0.12), rng.uniform(0.14, 0.18)) ** 1.5))
        shown = np.maximum(shown, wing * mottle * lung_mask(film, side))
        outer = [film.thorax.point(side, 1.0, down) for down in np.linspace(0.78, 1.04, 7)]
        inner = np.array(outer) - [side * 0.045, 0.0]
        lines = np.maximum(lines, draw_strokes(film, inner, np.array(outer), 0.004))
    fill_air(film, shown, strength)
    film.vessels = np.maximum(film.vessels, lines)
    return shown


def locate_emphysema(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Returns both lungs; `hyperinflate` has already changed the build."""
    return lung_mask(film, LEFT) + lung_mask(film, RIGHT)


def add_fibrosis(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Adds a coarse network of lines to the bases and the periphery of both lungs."""
    thorax, u = film.thorax, np.abs(film.x)
    low = np.clip((film.y - thorax.apex) / (max(thorax.dome) - thorax.apex) * 1.7 - 0.55, 0, 1)
    outer = np.clip(u / thorax.wall(film.y) * 1.5 - 0.4, 0.15, 1)
    where = np.clip(low * (0.35 + 0.65 * outer) * 1.25, 0, 1) * (lung_mask(film, LEFT) + lung_mask(film, RIGHT))
    coarse, fine = smooth_noise(film, rng, 36), smooth_noise(film, rng, 64)
    network = np.maximum(np.exp(-((coarse / 0.25) ** 2)), 0.7 * np.exp(-((fine / 0.22) ** 2)))
    fill_air(film, where * network, rng.uniform(0.55, 0.75))
    return where


def add_pleural_thickening(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Adds a dense uneven band along the side wall."""
    thorax, side = film.thorax, site.side
    start, stop = rng.uniform(0.15, 0.3), rng.uniform(0.75, 0.95)
    t = (film.y - thorax.apex) / (thorax.dome_of(side) - thorax.apex)
    width = rng.uniform(0.024, 0.04) * rounded_depth(t - start, 0.15) * rounded_depth(stop - t, 0.15)
    width = width * (1 + 0.25 * np.sin(t * rng.uniform(20, 35) + rng.uniform(0, 6)))
    depth = thorax.wall(film.y) - side * film.x
    band = np.clip((width - depth) / 0.008, 0, 1) * (depth > -0.01) * (t > start) * (t < stop)
    film.extra = film.extra + np.float32(rng.uniform(0.08, 0.14)) * band
    fill_air(film, band, 0.95)
    return band


def add_hernia(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Adds a round stomach behind the heart, with air above a level fluid surface."""
    x, radius = rng.uniform(-0.02, 0.06), rng.uniform(0.06, 0.09)
    y = film.thorax.dome[1] - rng.uniform(0.7, 1.1) * radius
    r = np.sqrt(squared_distance(film, x, y, radius * rng.uniform(1.0, 1.2), radius)) + 0.04 * smooth_noise(
        film, rng, 14
    )
    pouch = rounded_depth(1 - r, 0.3)
    level = y + radius * rng.uniform(-0.3, 0.2)
    air = pouch * np.clip(0.5 + (level - film.y) / 0.006, 0, 1)
    fill_air(film, pouch, 1.0)
    film.extra = film.extra + 0.1 * pouch - rng.uniform(0.3, 0.42) * air * np.clip((0.96 - r) / 0.12, 0, 1)
    return pouch


LESIONS: dict[str, Callable[[Film, Site, np.random.Generator], Array]] = {
    "Atelectasis": add_atelectasis,
    "Cardiomegaly": locate_cardiomegaly,
    "Effusion": add_effusion,
    "Infiltration": add_infiltration,
    "Mass": add_mass,
    "Nodule": add_nodule,
    "Pneumonia": add_pneumonia,
    "Pneumothorax": add_pneumothorax,
    "Consolidation": add_consolidation,
    "Edema": add_edema,
    "Emphysema": locate_emphysema,
    "Fibrosis": add_fibrosis,
    "Pleural_Thickening": add_pleural_thickening,
    "Hernia": add_hernia,
}


def _add_sphere(
    film: Film, site: Site, rng: np.random.Generator, radius: float, lobes: float, strength: float
) -> Array:
    """Adds a ball of tissue with a clear but wavy border to the lung."""
    x, y = film.thorax.point(site.side, rng.uniform(0.3, 0.72), rng.uniform(*_ZONE_DEPTHS[site.zone]))
    r = np.sqrt(squared_distance(film, x, y, radius, radius)) + lobes * smooth_noise(film, rng, round(1.2 / radius))
    ball = rounded_depth(1 - r, 0.65)
    film.extra = film.extra + 0.08 * ball * lung_mask(film, site.side)
    fill_air(film, ball, strength)
    return ball
