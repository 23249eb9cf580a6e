"""Fixtures of the phantom tests."""

import pytest

from chestai.phantom import PhantomImage, plan
from tests.chestai.phantom.plans import SEED


@pytest.fixture(scope="module")
def large_plan() -> list[PhantomImage]:
    return plan(5000, 128, SEED)
