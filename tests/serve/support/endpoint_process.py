"""The endpoint as a process without Ray Serve: a registered champion in the process, jobs on a real job server.

`python -m tests.serve.support.endpoint_process key=value ...` listens on `serve.port` until it is ended.
"""

import sys

import uvicorn

from chestai.config import load as conf
from chestai.lake.lake import Lake
from chestai.model.registry import Registry
from chestai.model.runtimes import Runtime
from serve.api.app import create_app
from serve.api.services import build_services
from serve.deployments.ray_jobs import RayJobs
from serve.inference.predictor import load_model
from serve.monitoring.collector import EventCollector
from tests.serve.support.local import LocalMonitor, LocalScorer

if __name__ == "__main__":
    config = conf.load(sys.argv[1:])
    model = load_model(Registry(config.tracking, Lake(config.lake)).load("champion"), Runtime(), "cpu", threads=1)
    monitor = LocalMonitor(EventCollector(lambda _: None))
    services = build_services(config, scorer=LocalScorer(model), monitor=monitor, jobs=RayJobs(config))
    uvicorn.run(create_app(services), host=config.serve.host, port=config.serve.port, log_level="warning")
