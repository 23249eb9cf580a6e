"""`python -m serve.gateway key=value ...`: runs the gateway until Ctrl-C."""

import logging
import threading

from chestai import RESEARCH_USE
from chestai.cli.console import Screen
from chestai.cli.main import main
from chestai.config.schema import Config
from serve.gateway.gateway import running


def run(config: Config, screen: Screen) -> None:
    """Runs the gateway, and waits for an interrupt."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    settings = config.gateway
    with running(config) as receiver:
        screen.say(
            f"gateway: {settings.dicom.ae_title} takes films of {', '.join(settings.dicom.callers)} at "
            f"{settings.dicom.host}:{receiver.port}, scores them at {settings.endpoint}, and sends results to "
            f"{', '.join(settings.destinations) or 'nobody'}\n{RESEARCH_USE}\nCtrl-C stops it."
        )
        threading.Event().wait()


if __name__ == "__main__":
    main("serve.gateway", run)
