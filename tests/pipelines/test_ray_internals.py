"""Ray's private interfaces are where we look for them; a new Ray release may move them."""

from pathlib import Path

import pytest
import ray

from pipelines.cluster import get_log_folder


def test_log_folder_is_that_of_the_connected_ray(ray_cluster: None) -> None:
    try:
        folder = Path(get_log_folder())
    except AttributeError as error:
        pytest.fail(f"Ray {ray.__version__} moved what `pipelines.cluster.get_log_folder` reads: {error}")
    assert folder.name == "logs" and any(folder.glob("raylet*"))
