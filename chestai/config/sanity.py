"""Limits of the checks that a build must pass."""

from typing import Annotated

from pydantic import Field

from chestai.config.types import Positive, Probability, Section


class Sanity(Section):
    min_count: Positive = 20
    boxes_off_image: Probability = 0.05
    flat_images: Probability = 0.05
    grey_range: Annotated[int, Field(ge=0, le=255)] = 24
    common_grey: Probability = 0.9
    copied_images: Probability = 0.01
    copy_correlation: Annotated[float, Field(ge=0.9, le=1)] = 0.997
    shortcut_auroc: Annotated[float, Field(ge=0.5, le=1)] = 0.95
    contradicted_views: Probability = 0.01
    view_count: Positive = 100
