"""Plans the synthetic corpus: patients with their images, labels, splits and file forms, without pixels."""

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
ODD_AGES = ("414Y", "013M", "001D")  # all occur in the 2017 table; the first is impossible

# Detectors in the 2017 table: width, height and pixel spacing in mm.
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
    """One entry of the corpus: a row of the label table, and everything needed to draw its file.

    Attributes:
        patient_id: Number of the patient, from 1.
        follow_up: Number of the image within the patient, from 0; part of the file's name.
        drawn_as: The follow-up whose pixels are drawn. It differs from `follow_up` only for a duplicate.
        findings: Findings in vocabulary order; empty for "No Finding".
        width, height: Size of the claimed original in pixels.
        spacing: Pixel spacing of the claimed original in millimetres.
        size: Side of the square image that is drawn, in pixels.
        seed: Seed of the corpus.
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
        """Returns the name of the file, such as `00000012_003.png`."""
        return f"{self.patient_id:08d}_{self.follow_up:03d}.png"


def plan(count: int, size: int, seed: int) -> list[PhantomImage]:
    """Plans `count` entries, ordered by patient and follow-up. The same arguments give the same plan.

    Labels are drawn per image, with finding frequencies that differ mildly between patients. Everything else (age, sex,
    view, detector, split, file form, number of images) is drawn independently of the labels.

    Raises:
        UserError: `count` or `size` is too small, or `seed` is negative.
    """
    if count < MIN_COUNT:
        raise UserError(f"phantom count must be at least {MIN_COUNT}, not {count}")
    if size < MIN_SIZE:
        raise UserError(f"phantom size must be at least {MIN_SIZE} pixels, not {size}")
    if seed < 0:
        raise UserError(f"phantom seed must not be negative, but is {seed}")
    label_rng, rng = (np.random.default_rng([stream, seed]) for stream in (1, 2))
    counts = _draw_image_counts(rng, count)
    splits = _assign_splits(rng, counts)
    odd_ages = dict(zip(rng.permutation(len(counts)).tolist(), ODD_AGES, strict=False))
    images: list[PhantomImage] = []
    for index, images_of_patient in enumerate(counts):
        sex: Literal["M", "F"] = "M" if rng.random() < 0.56 else "F"
        age = int(np.clip(rng.normal(50, 16), 18, 92))
        labels = _draw_labels(label_rng, images_of_patient)
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
    return _add_odd_files(rng, images)


def _draw_image_counts(rng: np.random.Generator, count: int) -> list[int]:
    """Draws the number of images of each patient, `count` in all. One patient has two, to allow a duplicate."""
    counts = [2]
    while sum(counts) < count:
        counts.append(min(int(rng.geometric(0.45)), 9, count - sum(counts)))
    return [counts[index] for index in rng.permutation(len(counts))]


def _assign_splits(rng: np.random.Generator, counts: list[int]) -> list[Split]:
    """Assigns a split to each patient: random patients go to test until it has its share of the images."""
    splits: list[Split] = ["train_val"] * len(counts)
    wanted = max(1, round(TEST_SHARE * sum(counts)))
    for index in rng.permutation(len(counts)):
        if wanted <= 0:
            break
        splits[index] = "test"
        wanted -= counts[index]
    return splits


def _draw_labels(rng: np.random.Generator, images: int) -> list[tuple[str, ...]]:
    """Draws the findings of a patient's images, mildly alike because the patient has frequencies of its own."""
    frequencies = np.exp(0.8 * rng.standard_normal(len(NIH14)))
    frequencies /= frequencies.sum()
    healthy = rng.beta(4 * NO_FINDING_SHARE, 4 * (1 - NO_FINDING_SHARE))
    labels: list[tuple[str, ...]] = []
    for _ in range(images):
        wanted = 0 if rng.random() < healthy else rng.choice(FINDING_COUNTS, p=FINDING_COUNT_SHARES)
        present = rng.choice(len(NIH14), size=wanted, replace=False, p=frequencies)
        labels.append(tuple(NIH14[index] for index in sorted(present)))
    return labels


def _add_odd_files(rng: np.random.Generator, images: list[PhantomImage]) -> list[PhantomImage]:
    """Gives some entries another form: RGBA, truncated, not an image, and a copy of the previous entry."""
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
