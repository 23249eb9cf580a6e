"""`python -m serve key=value ...`: serve a model until Ctrl-C."""

import threading
from functools import partial

import ray

from chestai.cli.console import Screen
from chestai.cli.main import main
from chestai.config.schema import Config
from chestai.notice import RESEARCH_USE
from serve.deployments import single_node
from serve.deployments.app import deploy, stop
from serve.deployments.preflight import Endpoint
from serve.deployments.tls import warning


def run(config: Config, screen: Screen) -> None:
    """Deploy, say how to ask, wait for an interrupt, leave no process behind."""
    screen.say(f"serve: starting {config.serve.model} of {config.tracking.model} on Ray Serve ...")
    try:
        if single_node.needs_one_replica(config):
            single_node.run(config, partial(_tell, config, screen))
        else:
            _tell(config, screen, deploy(config))
            threading.Event().wait()
    finally:
        if ray.is_initialized():
            stop()
            ray.shutdown()


def _tell(config: Config, screen: Screen, endpoint: Endpoint) -> None:
    """How to ask."""
    url, model, key = endpoint
    asked = "curl" if not config.auth.required else 'curl -H "X-API-Key: $KEY"'
    finding = model.bundle.card.findings[0]
    if (told := warning(config)) is not None:
        screen.say(told)
    if key is not None:
        screen.say(f"the first admin's key, shown this once: {key}")
    screen.say(
        f"serve: {config.tracking.model} version {model.version} at {url} (docs at {url}/docs)\n\n"
        f"  {asked} -F file=@image.png {url}/infer\n"
        f"  {asked} -F file=@image.png -H 'Accept: image/png' '{url}/infer?explain={finding}' -o overlay.png\n"
        f"  {asked} {url}/studies\n"
        f"  curl {url}/health/ready\n\n"
        f"{RESEARCH_USE}\nCtrl-C stops it."
    )


if __name__ == "__main__":
    main("serve", run)
