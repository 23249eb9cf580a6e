"""A lake for each sweep."""

from pathlib import Path

import pytest

from chestai.lake.lake import Lake
from tests.support.chain import Chain
from tests.tune.sweeps import copy_lake


@pytest.fixture
def lake(built: Chain, tmp_path: Path) -> Lake:
    """A copy of the built lake for one sweep."""
    return copy_lake(built.lake, tmp_path)
