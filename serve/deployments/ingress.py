"""The HTTP side over the model deployment, and as a deployment itself."""

import threading

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from chestai.config.schema import Config
from serve.api.app import create_app
from serve.api.services import Services
from serve.db.retention import purge_hourly
from serve.deployments.handles import RemoteMonitor, RemoteScorer
from serve.deployments.ray_jobs import RayJobs


def services(
    config: Config,
    model: DeploymentHandle,
    watch: DeploymentHandle,
    canary: DeploymentHandle | None = None,
    shadow: DeploymentHandle | None = None,
) -> Services:
    """What routes need, over deployments of Ray Serve; what is too old is purged from now on."""
    others = (None if one is None else RemoteScorer(one) for one in (canary, shadow))
    cluster = ray.get_runtime_context().gcs_address
    jobs = RayJobs(config, cluster) if config.serve.jobs else None
    made = Services.of(config, RemoteScorer(model), RemoteMonitor(watch), jobs, *others)
    if (days := config.state.retention_days) is not None:
        limits = (made.store.database, made.kept, days, threading.Event())
        threading.Thread(target=purge_hourly, args=limits, name="retention", daemon=True).start()
    return made


@serve.ingress()
class Ingress:
    """Holds no model: it checks and decodes what comes in, and passes pixels on."""

    def __init__(self, config: Config, **behind: DeploymentHandle) -> None:
        """
        Args:
            behind: as `services` takes them.
        """
        self.services = services(config, **behind)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self.services)
