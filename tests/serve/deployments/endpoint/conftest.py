"""One deployed endpoint for all tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.serve.support.deployed import deployed, make_champion
from tests.serve.support.service import Service


@pytest.fixture(scope="package")
def service(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    config, _ = make_champion(tmp_path_factory.mktemp("endpoint"))
    with deployed(config) as service:
        yield service
