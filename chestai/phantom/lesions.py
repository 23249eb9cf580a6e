"""The 14 findings as changes to a film. Each returns where it shows; a box is drawn round that.

A finding that alters the build itself (heart size, diaphragm height) also has an entry in ``BUILDS``, applied
before the film is drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from chestai.phantom.anatomy import Film, edge
from chestai.phantom.shapes import cloud, fill, lung, radial, strokes
from chestai.phantom.thorax import LEFT, RIGHT, SIDES, Array, Thorax


@dataclass(frozen=True)
class Site:
    """A place in the lungs: ``side`` is RIGHT or LEFT, ``zone`` is "upper", "mid" or "lower"."""

    side: int
    zone: str


UPPER, MID, LOWER = ([Site(side, zone) for side in SIDES] for zone in ("upper", "mid", "lower"))
ANYWHERE = UPPER + MID + LOWER

# Where a finding may lie. Those not named lie where anatomy puts them.
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
_DOWN = {"upper": (0.2, 0.36), "mid": (0.42, 0.62), "lower": (0.68, 0.88)}


def big_heart(thorax: Thorax, site: Site, rng: np.random.Generator) -> Thorax:
    """Cardiomegaly: a cardiothoracic ratio above 0.5."""
    return replace(thorax, cardiothoracic_ratio=rng.uniform(0.55, 0.68))


def hyperinflated(thorax: Thorax, site: Site, rng: np.random.Generator) -> Thorax:
    """Emphysema: low flat diaphragms, more air, fewer vessels, a narrow heart."""
    drop = rng.uniform(0.06, 0.1)
    return replace(
        thorax,
        dome=(thorax.dome[0] + drop, thorax.dome[1] + drop),
        arch=thorax.arch * rng.uniform(0.3, 0.5),
        cardiothoracic_ratio=rng.uniform(0.31, 0.36),
        aeration=thorax.aeration * rng.uniform(1.12, 1.22),
        markings=thorax.markings * rng.uniform(0.4, 0.6),
    )


def raised_dome(thorax: Thorax, site: Site, rng: np.random.Generator) -> Thorax:
    """Atelectasis: lost volume pulls the hemidiaphragm of its side up."""
    lift = rng.uniform(0.045, 0.085)
    right, left = thorax.dome
    return replace(thorax, dome=(right - lift, left) if site.side == RIGHT else (right, left - lift))


BUILDS: dict[str, Callable[[Thorax, Site, np.random.Generator], Thorax]] = {
    "Emphysema": hyperinflated,
    "Cardiomegaly": big_heart,
    "Atelectasis": raised_dome,
}


def atelectasis(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Two or three plate-like bands above the diaphragm."""
    shown = np.zeros_like(film.fill)
    down = rng.uniform(0.72, 0.8)
    for _ in range(rng.integers(2, 4)):
        x, y = film.thorax.point(site.side, rng.uniform(0.4, 0.65), down)
        down += rng.uniform(0.07, 0.1)
        tilt = -site.side * np.deg2rad(rng.uniform(-8, 22))
        along = (film.x - x) * np.cos(tilt) + (film.y - y) * np.sin(tilt)
        across = (film.y - y) * np.cos(tilt) - (film.x - x) * np.sin(tilt)
        half_length, half_width = rng.uniform(0.06, 0.11), rng.uniform(0.006, 0.011)
        taper = edge(half_length - np.abs(along), half_length)
        band = np.clip(1.7 - np.abs(across + 1.5 * along**2) / (half_width * (0.4 + 0.6 * taper)), 0, 1) * taper
        shown = np.maximum(shown, band)
    fill(film, shown, rng.uniform(0.65, 0.9))
    return shown * lung(film, site.side)


def cardiomegaly(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Shows over the whole heart shadow; the build already holds the change."""
    thorax = film.thorax
    right, left = (thorax.heart_border(side, film.y) for side in SIDES)
    heart = (film.x > -right) & (film.x < left)
    top = thorax.apex + 0.42 * (thorax.dome[0] - thorax.apex)
    return (heart & (film.y > top) & (film.y < max(thorax.dome) + 0.2 * thorax.arch)).astype(np.float32)


def effusion(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Basal fluid; its surface climbs the wall in a meniscus that blunts the costophrenic angle."""
    thorax, u = film.thorax, site.side * film.x
    depth = rng.uniform(0.04, 0.24)
    climb = np.clip(u / thorax.half_width, 0, 1) ** 3.5 * rng.uniform(0.08, 0.14)
    surface = thorax.dome_of(site.side) + 0.03 - depth - climb
    fluid = np.clip((film.y - surface) / 0.02, 0, 1)
    shown = fluid * lung(film, site.side)
    fill(film, shown, rng.uniform(0.9, 1.0))
    return shown


def infiltration(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Many small ill-defined patches in the upper and middle zones of one lung or both."""
    sides = SIDES if rng.random() < 0.5 else (site.side,)
    shown = np.zeros_like(film.fill)
    for side in sides:
        for _ in range(rng.integers(9, 14)):
            x, y = film.thorax.point(side, rng.uniform(0.15, 0.85), rng.uniform(0.2, 0.72))
            radius = rng.uniform(0.017, 0.03)
            shown = np.maximum(shown, rng.uniform(0.7, 1.0) * np.exp(-radial(film, x, y, radius, radius)))
    shown = shown * np.clip(0.75 + 0.35 * cloud(film, rng, 40), 0, 1)
    fill(film, shown, rng.uniform(0.7, 0.9))
    return shown * (lung(film, LEFT) + lung(film, RIGHT))


def mass(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """A lobulated dense mass of 36 to 75 mm."""
    radius = rng.uniform(18, 37) / film.thorax.field_mm
    return _sphere(film, site, rng, radius, lobes=0.13, strength=rng.uniform(0.85, 1.0))


def nodule(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """A round nodule of 18 to 29 mm."""
    radius = rng.uniform(9, 14.5) / film.thorax.field_mm
    return _sphere(film, site, rng, radius, lobes=0.06, strength=rng.uniform(0.75, 0.95))


def pneumonia(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """One soft segmental opacity without a border."""
    x, y = film.thorax.point(site.side, rng.uniform(0.35, 0.6), rng.uniform(*_DOWN[site.zone]))
    spread = radial(film, x, y, rng.uniform(0.085, 0.12), rng.uniform(0.075, 0.1))
    shown = np.exp(-spread) * np.clip(0.9 + 0.2 * cloud(film, rng, 14), 0, 1.1)
    fill(film, shown, rng.uniform(0.7, 0.9))
    return shown * lung(film, site.side)


def pneumothorax(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """A lucent rim without markings at apex and side, inside it the thin line of the visceral pleura."""
    thorax, side = film.thorax, site.side
    drop, inset = rng.uniform(0.04, 0.1), rng.uniform(0.05, 0.12)
    fading = np.clip(1.15 - (film.y - thorax.apex) / (thorax.dome_of(side) - thorax.apex), 0, 1)
    inside = thorax.wall(film.y - drop) - inset * fading - side * film.x
    aerated = lung(film, side)
    rim = np.clip(0.5 - inside / 0.006, 0, 1) * aerated
    pleura = np.clip(1.5 - np.abs(inside) / 0.004, 0, 1) * aerated
    film.vessels = film.vessels * (1 - rim)
    collapsed = np.clip(0.5 + inside / 0.006, 0, 1) * aerated
    film.extra = film.extra - 0.13 * rim + 0.17 * pleura + 0.06 * collapsed
    return rim


def consolidation(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """A dense lobe that ends sharply at a fissure, with dark branching bronchi in it."""
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
        bronchi = np.maximum(bronchi, strokes(film, start, end, width))
        start = end
    shown = lobe * lung(film, side)
    fill(film, shown * (1 - 0.4 * bronchi), rng.uniform(0.85, 0.97))
    return shown


def edema(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Bat-wing opacity round both hila that spares the periphery, with Kerley B lines at the bases."""
    shown, strength = np.zeros_like(film.fill), rng.uniform(0.6, 0.85)
    mottle = np.clip(0.85 + 0.3 * cloud(film, rng, 18), 0, 1.1)
    lines = np.zeros_like(film.fill)
    for side in SIDES:
        x, y = film.thorax.point(side, 0.25, rng.uniform(0.5, 0.58))
        wing = np.exp(-(radial(film, x, y, rng.uniform(0.09, 0.12), rng.uniform(0.14, 0.18)) ** 1.5))
        shown = np.maximum(shown, wing * mottle * lung(film, side))
        outer = [film.thorax.point(side, 1.0, down) for down in np.linspace(0.78, 1.04, 7)]
        inner = np.array(outer) - [side * 0.045, 0.0]
        lines = np.maximum(lines, strokes(film, inner, np.array(outer), 0.004))
    fill(film, shown, strength)
    film.vessels = np.maximum(film.vessels, lines)
    return shown


def emphysema(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """Shows over both lungs; the build already holds the change."""
    return lung(film, LEFT) + lung(film, RIGHT)


def fibrosis(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """A coarse network of lines at the bases and the periphery of both lungs."""
    thorax, u = film.thorax, np.abs(film.x)
    low = np.clip((film.y - thorax.apex) / (max(thorax.dome) - thorax.apex) * 1.7 - 0.55, 0, 1)
    outer = np.clip(u / thorax.wall(film.y) * 1.5 - 0.4, 0.15, 1)
    where = np.clip(low * (0.35 + 0.65 * outer) * 1.25, 0, 1) * (lung(film, LEFT) + lung(film, RIGHT))
    coarse, fine = cloud(film, rng, 36), cloud(film, rng, 64)
    network = np.maximum(np.exp(-((coarse / 0.25) ** 2)), 0.7 * np.exp(-((fine / 0.22) ** 2)))
    fill(film, where * network, rng.uniform(0.55, 0.75))
    return where


def pleural_thickening(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """A dense uneven band along the side wall."""
    thorax, side = film.thorax, site.side
    start, stop = rng.uniform(0.15, 0.3), rng.uniform(0.75, 0.95)
    t = (film.y - thorax.apex) / (thorax.dome_of(side) - thorax.apex)
    width = rng.uniform(0.024, 0.04) * edge(t - start, 0.15) * edge(stop - t, 0.15)
    width = width * (1 + 0.25 * np.sin(t * rng.uniform(20, 35) + rng.uniform(0, 6)))
    depth = thorax.wall(film.y) - side * film.x
    band = np.clip((width - depth) / 0.008, 0, 1) * (depth > -0.01) * (t > start) * (t < stop)
    film.extra = film.extra + np.float32(rng.uniform(0.08, 0.14)) * band
    fill(film, band, 0.95)
    return band


def hernia(film: Film, site: Site, rng: np.random.Generator) -> Array:
    """A round stomach behind the heart: fluid below, air above a level surface."""
    x, radius = rng.uniform(-0.02, 0.06), rng.uniform(0.06, 0.09)
    y = film.thorax.dome[1] - rng.uniform(0.7, 1.1) * radius
    r = np.sqrt(radial(film, x, y, radius * rng.uniform(1.0, 1.2), radius)) + 0.04 * cloud(film, rng, 14)
    pouch = edge(1 - r, 0.3)
    level = y + radius * rng.uniform(-0.3, 0.2)
    air = pouch * np.clip(0.5 + (level - film.y) / 0.006, 0, 1)
    fill(film, pouch, 1.0)
    film.extra = film.extra + 0.1 * pouch - rng.uniform(0.3, 0.42) * air * np.clip((0.96 - r) / 0.12, 0, 1)
    return pouch


LESIONS: dict[str, Callable[[Film, Site, np.random.Generator], Array]] = {
    "Atelectasis": atelectasis,
    "Cardiomegaly": cardiomegaly,
    "Effusion": effusion,
    "Infiltration": infiltration,
    "Mass": mass,
    "Nodule": nodule,
    "Pneumonia": pneumonia,
    "Pneumothorax": pneumothorax,
    "Consolidation": consolidation,
    "Edema": edema,
    "Emphysema": emphysema,
    "Fibrosis": fibrosis,
    "Pleural_Thickening": pleural_thickening,
    "Hernia": hernia,
}


def _sphere(film: Film, site: Site, rng: np.random.Generator, radius: float, lobes: float, strength: float) -> Array:
    """A ball of tissue in the lung with a clear but wavy border."""
    x, y = film.thorax.point(site.side, rng.uniform(0.3, 0.72), rng.uniform(*_DOWN[site.zone]))
    r = np.sqrt(radial(film, x, y, radius, radius)) + lobes * cloud(film, rng, round(1.2 / radius))
    ball = edge(1 - r, 0.65)
    film.extra = film.extra + 0.08 * ball * lung(film, site.side)
    fill(film, ball, strength)
    return ball
