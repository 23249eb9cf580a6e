"""`python -m serve key=value ...`: serve the champion until Ctrl-C."""

import json
import threading
import urllib.request

import ray

from chestai.bundle import RESEARCH_USE
from chestai.command import main
from chestai.screen import Screen
from chestai.sections import Config
from serve.app import deploy, stop


def run(config: Config, screen: Screen) -> None:
    """Deploy, say how to ask, wait for an interrupt, leave no process behind."""
    screen.say(f"serve: starting {config.serve.model} of {config.tracking.model} on Ray Serve ...")
    try:
        url = deploy(config)
        with urllib.request.urlopen(f"{url}/model") as response:
            card = json.load(response)
        finding = card["findings"][0]
        screen.say(
            f"serve: {config.tracking.model} version {card['version']} at {url} (docs at {url}/docs)\n\n"
            f"  curl -F file=@image.png {url}/infer\n"
            f"  curl -F file=@image.png -H 'Accept: image/png' '{url}/infer?explain={finding}' -o overlay.png\n"
            f"  curl {url}/health/ready\n\n"
            f"{RESEARCH_USE}\nCtrl-C stops it."
        )
        threading.Event().wait()
    finally:
        if ray.is_initialized():
            stop()
            ray.shutdown()


if __name__ == "__main__":
    main("serve", run)
