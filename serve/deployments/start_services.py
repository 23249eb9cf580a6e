"""The services of a process of the HTTP side, and the hourly purge of what is too old."""

import threading

from chestai.config.schema import Config
from serve.api.services import Services, build_services
from serve.db.leftovers import Leftovers
from serve.db.retention import purge_hourly
from serve.deployments.durable_state import check_durable
from serve.inference.batch_jobs import JobRunner
from serve.inference.scorer import Scorer
from serve.monitoring.client import MonitorClient


def start_services(
    config: Config,
    *,
    scorer: Scorer,
    monitor: MonitorClient,
    jobs: JobRunner | None,
    canary: Scorer | None,
    shadow: Scorer | None,
) -> Services:
    """Builds the services and starts the purge.

    Raises:
        UserError: As `build_services` and `check_durable`.
    """
    check_durable(config)
    services = build_services(config, scorer=scorer, monitor=monitor, jobs=jobs, canary=canary, shadow=shadow)
    if (days := config.state.retention_days) is not None:
        state = services.state
        arguments = (state.store.database, state.images, Leftovers(config), days, threading.Event())
        threading.Thread(target=purge_hourly, args=arguments, name="retention", daemon=True).start()
    return services
