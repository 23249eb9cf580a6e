"""`python -m serve key=value ...`: serves a model until Ctrl-C."""

import threading
from functools import partial

from chestai import RESEARCH_USE
from chestai.cli.console import Screen
from chestai.cli.main import main
from chestai.config.schema import Config
from serve.auth.bootstrap import create_first_admin
from serve.deployments import single_node
from serve.deployments.preflight import Endpoint
from serve.deployments.tls import network_warning


def run(config: Config, screen: Screen) -> None:
    """Deploys the endpoint, prints how to use it, and waits for an interrupt; no process is left behind."""
    is_single = single_node.needs_one_replica(config)
    place = "in this process (serve.max_replicas=1)" if is_single else "on Ray Serve"
    screen.say(f"serve: starting {config.serve.model} of {config.tracking.model} {place} ...")
    if is_single:
        single_node.run(config, partial(_print_usage, config, screen))
    else:
        _serve_on_ray(config, screen)


def _serve_on_ray(config: Config, screen: Screen) -> None:
    import ray  # here, for Ray and Serve take seconds to import

    from serve.deployments.app import deploy, stop

    try:
        _print_usage(config, screen, deploy(config))
        threading.Event().wait()
    finally:
        if ray.is_initialized():
            stop()
            ray.shutdown()


def _print_usage(config: Config, screen: Screen, endpoint: Endpoint) -> None:
    url, model = endpoint
    curl = "curl" if not config.auth.required else 'curl -H "X-API-Key: $KEY"'
    finding = model.bundle.card.findings[0]
    if (warning := network_warning(config)) is not None:
        screen.say(warning)
    if config.auth.required:
        create_first_admin(config, screen.say)
    screen.say(
        f"serve: {config.tracking.model} version {model.version} at {url} (docs at {url}/docs)\n\n"
        f"  {curl} -F file=@image.png {url}/infer\n"
        f"  {curl} -F file=@image.png -H 'Accept: image/png' '{url}/infer?explain={finding}' -o overlay.png\n"
        f"  {curl} {url}/studies\n"
        f"  curl {url}/health/ready\n\n"
        f"{RESEARCH_USE}\nCtrl-C stops it."
    )


if __name__ == "__main__":
    main("serve", run)
