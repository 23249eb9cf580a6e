"""The Ray of the endpoint: the running one, or an embedded one."""

import ray

from chestai.cli.signals import preserve_sigterm_handler
from chestai.config.ray_options import check_ray_address, find_ray_address, plan_embedded_ray
from chestai.config.schema import Cluster, Config
from serve.deployments.preflight import find_port
from serve.deployments.ray_internals import get_dashboard_address, listen_on_loopback, use_any_agent_port


def connect_ray(config: Config) -> Config:
    """Connects to the running Ray, or starts an embedded one, which `ray.init` protects with a token.

    Returns:
        The config; if `serve.jobs` needs a job server, with that of this Ray, or without jobs if it has none. An
        embedded Ray has one on loopback.
    """
    needs_job_server = config.serve.jobs and config.serve.job_server is None
    if not ray.is_initialized():
        _init_ray(config.cluster, needs_job_server)
    if not needs_job_server:
        return config
    address = get_dashboard_address()
    update = {"job_server": f"http://{address}"} if address else {"jobs": False}
    return config.model_copy(update={"serve": config.serve.model_copy(update=update)})


def _init_ray(cluster: Cluster, needs_job_server: bool) -> None:
    check_ray_address(cluster)
    address = find_ray_address(cluster)
    with preserve_sigterm_handler():
        if address:
            ray.init(address=address, log_to_driver=False)
            return
        # A free port, because two endpoints on a machine must not share a job server.
        port = find_port("127.0.0.1", 0) if needs_job_server else None
        with use_any_agent_port(), listen_on_loopback():
            ray.init(**plan_embedded_ray(cluster, dashboard=needs_job_server, dashboard_port=port).arguments)
