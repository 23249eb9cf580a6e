"""The build of a patient: the outline of the thorax in unit coordinates of a film."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # always float32, but OpenCV's type stubs state no dtype
RIGHT, LEFT = -1, 1  # the patient's sides; the right lung lies at negative x
SIDES = (RIGHT, LEFT)


@dataclass(frozen=True)
class Thorax:
    """The build of a patient. Lengths are in film sides unless stated otherwise.

    Attributes:
        half_width: Half the largest inner width of the rib cage.
        apex: y of the lung apices.
        dome: y of the tops of the right and left hemidiaphragms.
        arch: Drop of the diaphragm from a dome to the costophrenic angle.
        cardiothoracic_ratio: Largest width of the heart over largest inner width of the rib cage.
        margin: Thickness of the soft tissue outside the rib cage.
        aeration: Air in the lungs; 1 is normal.
        markings: Strength of the lung vessels; 1 is normal.
        aortic_knob: Protrusion of the aortic knob.
        breast: Attenuation of the breasts at their thickest.
        bone_density: Attenuation of bone; 1 is normal.
        rib_slope: Steepness of the ribs; 1 is normal.
        stomach: Distance of the gastric bubble from the midline in half widths, and its size; 1 is large.
        field_mm: Side of the film in millimetres.
    """

    half_width: float
    apex: float
    dome: tuple[float, float]
    arch: float
    cardiothoracic_ratio: float
    margin: float
    aeration: float
    markings: float
    aortic_knob: float
    breast: float
    bone_density: float
    rib_slope: float
    stomach: tuple[float, float]
    field_mm: float

    def dome_of(self, side: int) -> float:
        """Returns y of the top of one hemidiaphragm."""
        return self.dome[0] if side == RIGHT else self.dome[1]

    def wall(self, y: Array | float) -> Array:
        """Computes the distance from the midline to the inner chest wall at heights `y`."""
        t = (y - self.apex) / (self.floor - self.apex)
        shoulder = 1 - np.clip(1 - t / 0.86, 0, 1) ** 2.4
        taper = 1 - 0.12 * np.clip(t - 0.86, 0, None) ** 2
        apex_half_width = 0.13
        return (apex_half_width + (self.half_width - apex_half_width) * shoulder**0.72 + np.minimum(3 * t, 0)) * taper

    def inner(self, y: Array | float) -> Array:
        """Computes the distance from the midline to the lung's inner border, ignoring the heart."""
        t = np.clip((y - self.apex) / (self.floor - self.apex), 0, 1)
        return 0.04 + 0.06 * np.exp(-t / 0.035)

    def diaphragm(self, side: int, u: Array) -> Array:
        """Computes y of the diaphragm at distances `u` from the midline."""
        crest = 0.5 * self.half_width
        outward = np.clip((u - crest) / (self.half_width - crest), 0, 1.3)
        inward = np.clip((crest - u) / crest, 0, 1)
        return self.dome_of(side) + self.arch * outward**2.3 + 0.35 * self.arch * inward**2

    def heart_border(self, side: int, y: Array | float) -> Array:
        """Computes the distance from the midline to the mediastinal border: great vessels above, heart below.

        The largest right and left distances add up to the cardiothoracic ratio times the cage's inner width.
        """
        width = self.cardiothoracic_ratio * 2 * self.half_width
        floor = self.dome_of(side) + 0.3 * self.arch
        top = self.apex + 0.28 * (floor - self.apex)
        t = (y - top) / (floor - top)
        if side == RIGHT:
            base, reach, peak = 0.042, 0.32 * width, 0.66
            bumps = [(0.048, -0.3, 0.35)]
        else:
            base, reach, peak = 0.04, 0.68 * width, 0.8
            bumps = [(0.055 + self.aortic_knob, -0.06, 0.14), (0.06, 0.2, 0.12)]
        rise = np.where(t < peak, np.sin(np.pi / 2 * np.clip(t / peak, 0, 1)) ** 1.7, 1 - 0.9 * (t - peak) ** 2)
        border = base + (reach - base) * np.clip(rise, 0, 1)
        for size, where, spread in bumps:
            border = np.maximum(border, base + (size - 0.02) * np.exp(-(((t - where) / spread) ** 2)))
        return border

    @property
    def floor(self) -> float:
        """Returns y of the lower costophrenic angle."""
        return max(self.dome) + self.arch

    def point(self, side: int, across: float, down: float) -> tuple[float, float]:
        """Returns (x, y) of a point in a lung.

        Args:
            across: 0 (mediastinum) to 1 (chest wall).
            down: 0 (apex) to 1 (diaphragm).
        """
        y = self.apex + down * (self.dome_of(side) - self.apex)
        near, far = max(float(self.inner(y)), float(self.heart_border(side, y))), float(self.wall(y))
        return side * (near + across * (far - near)), y


def sample_thorax(rng: np.random.Generator) -> Thorax:
    """Samples the build of a healthy adult."""
    right_dome = rng.uniform(0.66, 0.74)
    return Thorax(
        half_width=rng.uniform(0.33, 0.395),
        apex=rng.uniform(0.1, 0.15),
        dome=(right_dome, right_dome + rng.uniform(0.012, 0.03)),
        arch=rng.uniform(0.085, 0.12),
        cardiothoracic_ratio=rng.uniform(0.40, 0.48),
        margin=rng.uniform(0.035, 0.13),
        aeration=rng.uniform(0.92, 1.05),
        markings=rng.uniform(0.8, 1.2),
        aortic_knob=rng.uniform(0.0, 0.03),
        breast=rng.uniform(0.0, 0.1),
        bone_density=rng.uniform(0.75, 1.2),
        rib_slope=rng.uniform(0.8, 1.25),
        stomach=(rng.uniform(0.35, 0.55), rng.uniform(0.5, 1.1)),
        field_mm=rng.uniform(350, 430),
    )
