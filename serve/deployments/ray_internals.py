"""Ray's private interfaces that the endpoint uses.

`tests/serve/deployments/test_ray_internals.py` fails if Ray moves one.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any, NoReturn

import requests
from ray._private import parameter, ray_constants
from ray._private.worker import get_dashboard_url
from ray.job_submission import JobSubmissionClient

REQUEST_TIMEOUT_S = 12.0  # the job server itself waits up to 10 s for its agent


class JobServerError(RuntimeError):
    """An error response of the job server."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"status {status}: {text}")
        self.status = status


class JobClient(JobSubmissionClient):
    """Ray's client of the job server, with a timeout and with errors that have a status code.

    Private because Ray's client sends requests without a timeout, and reports the status code only within the text of a
    RuntimeError.
    """

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:
        return super()._do_request(method, endpoint, timeout=REQUEST_TIMEOUT_S, **options)

    def _raise_error(self, r: requests.Response) -> NoReturn:
        raise JobServerError(r.status_code, r.text)


def get_dashboard_address() -> str | None:
    """Returns host and port of the dashboard, which has the job server, of the connected Ray; None if it has none.

    Private because the public API returns the address only from the call of `ray.init`, which may have been elsewhere.
    """
    return get_dashboard_url() or None


@contextlib.contextmanager
def use_any_agent_port() -> Iterator[None]:
    """Lets Ray's agent, which starts jobs, listen on any free port if `ray.init` is called within the block.

    Private because `ray.init` has no argument for it. With the default port, the second Ray on a machine silently runs
    no jobs.
    """
    original = parameter.RayParams
    vars(parameter)["RayParams"] = functools.partial(original, dashboard_agent_listen_port=0)
    try:
        yield
    finally:
        vars(parameter)["RayParams"] = original


@contextlib.contextmanager
def listen_on_loopback() -> Iterator[None]:
    """Lets all processes of a Ray that `ray.init` starts within the block listen on loopback alone.

    Otherwise other machines reach its ports, of which those with metrics ask for no token. Private because Ray means
    the setting for other operating systems, and reads the variable when it is imported.
    """
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    former, former_variable = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(name)
    vars(ray_constants)["ENABLE_RAY_CLUSTER"], os.environ[name] = False, "0"  # here, and in the processes it starts
    try:
        yield
    finally:
        vars(ray_constants)["ENABLE_RAY_CLUSTER"] = former
        del os.environ[name]
        os.environ.update({} if former_variable is None else {name: former_variable})
