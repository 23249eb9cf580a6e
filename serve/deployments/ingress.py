"""The HTTP side as a deployment, and its services over the other deployments."""

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from chestai.config.schema import Config
from serve.api.app import create_app
from serve.api.services import Services
from serve.deployments.handles import RemoteMonitor, RemoteScorer
from serve.deployments.ray_jobs import RayJobs
from serve.deployments.start_services import start_services


def connect_services(
    config: Config,
    *,
    model: DeploymentHandle,
    monitor: DeploymentHandle,
    canary: DeploymentHandle | None = None,
    shadow: DeploymentHandle | None = None,
) -> Services:
    """Builds the services of the HTTP side over deployments of Ray Serve. Raises UserError as `start_services`."""
    cluster = ray.get_runtime_context().gcs_address
    return start_services(
        config,
        scorer=RemoteScorer(model),
        monitor=RemoteMonitor(monitor),
        jobs=RayJobs(config, cluster) if config.serve.jobs else None,
        canary=RemoteScorer(canary) if canary is not None else None,
        shadow=RemoteScorer(shadow) if shadow is not None else None,
    )


@serve.ingress()
class Ingress:
    """Checks and decodes requests, and passes pixels on to the model; it holds no model itself."""

    def __init__(self, config: Config, **handles: DeploymentHandle) -> None:
        """
        Args:
            handles: As for `connect_services`.
        """
        self.services = connect_services(config, **handles)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self.services)
