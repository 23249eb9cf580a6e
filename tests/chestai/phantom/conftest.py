"""A large plan of phantoms."""

import pytest

from chestai.phantom import PhantomImage, plan
from tests.chestai.phantom.plans import SEED


@pytest.fixture(scope="module")
def many() -> list[PhantomImage]:
    return plan(5000, 128, SEED)
