"""Who is in the synthetic corpus: patients, their images, labels, splits and file forms. No pixels here."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from chestai.errors import UserError
from chestai.labels.findings import NIH14

Form = Literal["grey", "rgba", "truncated", "not_an_image", "duplicate"]
Split = Literal["train_val", "test"]

MIN_COUNT, MIN_SIZE = 16, 64
NO_FINDING_SHARE = 0.45
FINDING_COUNTS, FINDING_COUNT_SHARES = (1, 2, 3), (0.2, 0.38, 0.42)
TEST_SHARE = 0.25
RGBA_SHARE = 0.015
ODD_AGES = ("414Y", "013M", "001D")  # each occurs in the 2017 table; the first is impossible

# (width, height, pixel spacing in mm) of the detectors in the 2017 table.
_DETECTORS = (
    (2500, 2048, "0.168"),
    (2992, 2991, "0.143"),
    (3056, 2544, "0.139"),
    (2048, 2500, "0.168"),
    (2021, 2020, "0.194311"),
    (2544, 3056, "0.139"),
)
_DETECTOR_SHARES = (0.34, 0.2, 0.18, 0.13, 0.1, 0.05)


@dataclass(frozen=True)
class PhantomImage:
    """One entry of the corpus: a row of the table and all that is needed to draw its file.

    Attributes:
        patient_id: 1 and up.
        follow_up: 0 and up within the patient; names the file.
        drawn_as: the follow-up whose pixels are drawn; differs from ``follow_up`` in a duplicate only.
        findings: in vocabulary order; empty for "No Finding".
        width, height: of the claimed original, pixels; spacing: its pixel spacing, millimetres.
        size: side of the square image that is drawn, pixels.
        seed: the corpus's.
    """

    patient_id: int
    follow_up: int
    drawn_as: int
    findings: tuple[str, ...]
    age: str
    sex: Literal["M", "F"]
    view: Literal["PA", "AP"]
    width: int
    height: int
    spacing: str
    split: Split
    form: Form
    size: int
    seed: int

    @property
    def image_id(self) -> str:
        """The file's name, such as ``00000012_003.png``."""
        return f"{self.patient_id:08d}_{self.follow_up:03d}.png"


def plan(count: int, size: int, seed: int) -> list[PhantomImage]:
    """``count`` entries ordered by patient and follow-up, the same for the same arguments.

    Labels are drawn per image, with tastes that differ mildly between patients. Everything else (ages, sex,
    view, detector, split, file form, number of images of a patient) is drawn without looking at them.

    Raises:
        UserError: ``count`` or ``size`` is too small, or ``seed`` negative.
    """
    if count < MIN_COUNT:
        raise UserError(f"phantom count must be at least {MIN_COUNT}, not {count}")
    if size < MIN_SIZE:
        raise UserError(f"phantom size must be at least {MIN_SIZE} pixels, not {size}")
    if seed < 0:
        raise UserError(f"phantom seed must not be negative, but is {seed}")
    label_rng, rng = (np.random.default_rng([stream, seed]) for stream in (1, 2))
    counts = _images_per_patient(rng, count)
    splits = _splits(rng, counts)
    odd_ages = dict(zip(rng.permutation(len(counts)).tolist(), ODD_AGES, strict=False))
    images: list[PhantomImage] = []
    for index, images_of_patient in enumerate(counts):
        sex: Literal["M", "F"] = "M" if rng.random() < 0.56 else "F"
        age = int(np.clip(rng.normal(50, 16), 18, 92))
        labels = _labels(label_rng, images_of_patient)
        for follow_up, findings in enumerate(labels):
            age += int(follow_up > 0 and rng.random() < 0.2)
            width, height, spacing = _DETECTORS[rng.choice(len(_DETECTORS), p=_DETECTOR_SHARES)]
            images.append(
                PhantomImage(
                    patient_id=index + 1,
                    follow_up=follow_up,
                    drawn_as=follow_up,
                    findings=findings,
                    age=odd_ages.get(index, f"{age:03d}Y"),
                    sex=sex,
                    view="PA" if rng.random() < 0.6 else "AP",
                    width=width,
                    height=height,
                    spacing=spacing,
                    split=splits[index],
                    form="grey",
                    size=size,
                    seed=seed,
                )
            )
    return _with_odd_files(rng, images)


def _images_per_patient(rng: np.random.Generator, count: int) -> list[int]:
    """Images of each patient, summing to ``count``; somebody has two, so that a duplicate can exist."""
    counts = [2]
    while sum(counts) < count:
        counts.append(min(int(rng.geometric(0.45)), 9, count - sum(counts)))
    return [counts[index] for index in rng.permutation(len(counts))]


def _splits(rng: np.random.Generator, counts: list[int]) -> list[Split]:
    """The split of each patient: random patients go to test until it holds its share of the images."""
    splits: list[Split] = ["train_val"] * len(counts)
    wanted = max(1, round(TEST_SHARE * sum(counts)))
    for index in rng.permutation(len(counts)):
        if wanted <= 0:
            break
        splits[index] = "test"
        wanted -= counts[index]
    return splits


def _labels(rng: np.random.Generator, images: int) -> list[tuple[str, ...]]:
    """Findings of a patient's images. The patient's tastes make them alike, mildly."""
    tastes = np.exp(0.8 * rng.standard_normal(len(NIH14)))
    tastes /= tastes.sum()
    healthy = rng.beta(4 * NO_FINDING_SHARE, 4 * (1 - NO_FINDING_SHARE))
    labels: list[tuple[str, ...]] = []
    for _ in range(images):
        wanted = 0 if rng.random() < healthy else rng.choice(FINDING_COUNTS, p=FINDING_COUNT_SHARES)
        present = rng.choice(len(NIH14), size=wanted, replace=False, p=tastes)
        labels.append(tuple(NIH14[index] for index in sorted(present)))
    return labels


def _with_odd_files(rng: np.random.Generator, images: list[PhantomImage]) -> list[PhantomImage]:
    """Give some entries another form: RGBA, truncated, not an image, and one copy of its predecessor."""
    images = list(images)
    followed = [index for index, image in enumerate(images) if image.follow_up > 0]
    copy = int(rng.choice(followed))
    original = images[copy - 1]
    images[copy] = replace(
        images[copy],
        drawn_as=original.drawn_as,
        findings=original.findings,
        view=original.view,
        form="duplicate",
    )
    rgba = max(2, round(RGBA_SHARE * len(images)))
    forms: list[Form] = ["truncated", "not_an_image", *["rgba"] * rgba]  # type: ignore[list-item]
    others = [index for index in range(len(images)) if index not in (copy - 1, copy)]
    for index, form in zip(rng.permutation(others)[: len(forms)].tolist(), forms, strict=True):
        images[index] = replace(images[index], form=form)
    return images
