"""Ray's private interfaces are where `serve.deployments.ray_internals` expects them."""

import inspect
import os

from ray._private import parameter, ray_constants, services, worker
from ray.job_submission import JobSubmissionClient

from serve.deployments.ray_internals import JobServerError, listen_on_loopback, use_any_agent_port

MOVED = "Ray has changed a private interface: adapt serve/deployments/ray_internals.py"


def test_agent_port_is_an_argument_of_ray_params() -> None:
    arguments = inspect.signature(parameter.RayParams).parameters
    assert "dashboard_agent_listen_port" in arguments, f"{MOVED} (use_any_agent_port)"
    assert "ray._private.parameter.RayParams(" in inspect.getsource(worker.init), f"{MOVED} (use_any_agent_port)"


def test_agent_port_is_replaced_only_within_the_block() -> None:
    original = parameter.RayParams
    with use_any_agent_port():
        assert parameter.RayParams().dashboard_agent_listen_port == 0
    assert parameter.RayParams is original


def test_loopback_is_for_rays_that_start_within_the_block() -> None:
    name = getattr(ray_constants, "ENABLE_RAY_CLUSTERS_ENV_VAR", None)
    assert name and "ray_constants.ENABLE_RAY_CLUSTER" in inspect.getsource(services.get_node_ip_address), MOVED
    before = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(name)
    with listen_on_loopback():
        assert not ray_constants.ENABLE_RAY_CLUSTER and os.environ[name] == "0"
    assert (ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(name)) == before


def test_dashboard_url_is_in_the_worker_module() -> None:
    assert callable(getattr(worker, "get_dashboard_url", None)), f"{MOVED} (get_dashboard_address)"


def test_job_client_sends_all_requests_and_errors_through_the_overridden_methods() -> None:
    for name in ("submit_job", "get_job_info", "stop_job"):
        source = inspect.getsource(getattr(JobSubmissionClient, name))
        assert "self._do_request(" in source and "self._raise_error(" in source, f"{MOVED} (JobClient.{name})"


def test_job_server_error_has_the_status() -> None:
    error = JobServerError(404, "no such job")
    assert error.status == 404 and isinstance(error, RuntimeError)
