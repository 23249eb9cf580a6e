"""The endpoint as a process of its own, without Serve: a registered champion in the process, jobs on a real job server.

`python -m tests.serve.endpoint_process key=value ...`: it listens on `serve.port` until it is ended.
"""

import sys

import uvicorn

from chestai import config as conf
from chestai.lake import Lake
from chestai.registry import Registry
from chestai.runtimes import Runtime
from serve.jobs import Jobs
from serve.scoring import loaded
from serve.watching import Watching
from serve.web.application import application
from serve.web.services import Services
from tests.serve.local import Local, LocalWatch

if __name__ == "__main__":
    config = conf.load(sys.argv[1:])
    version = loaded(Registry(config.tracking, Lake(config.lake)).load("champion"), Runtime(), "cpu", threads=1)
    watch = LocalWatch(Watching(lambda _: None))
    services = Services.of(config, Local(version), watch, Jobs(config))
    uvicorn.run(application(services), host=config.serve.host, port=config.serve.port, log_level="warning")
