"""The model deployment: the champion on a replica, its requests batched, followed when the alias moves."""

import asyncio
import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from ray import serve

from chestai.config.schema import Config
from chestai.imaging.preprocess import Grey
from chestai.lake.lake import Lake
from chestai.model.registry import CHAMPION, Registry
from chestai.model.runtimes import Runtime
from serve.inference.predictor import LoadedModel, OodRejection, ScoreResult, check_runtime_allowed, load_model
from serve.schemas import ModelCard, ModelInfo

MAX_BATCH = 8
# A batch fills while the one before it runs. On a GPU a larger one costs no more, so it is worth a wait; on a CPU an
# image takes as long in a batch as alone, and waiting would only delay a lone request.
BATCH_WAIT_S = {"cuda": 0.005, "cpu": 0.0}

log = logging.getLogger("ray.serve")


class ModelDeployment:
    """Answers by one registered version at a time; each request is answered by one version from end to end."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.registry = Registry(config.tracking, Lake(config.lake))
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.threads = max(1, len(os.sched_getaffinity(0)) // config.serve.max_replicas)
        self.pinned: int | None = None
        self.loaded: LoadedModel | None = None
        self.turn = threading.Lock()  # one version is loaded at a time
        # One thread runs all batches: OpenMP keeps the number of threads for each calling thread, so it is set inside.
        self.forward_thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(self.threads,))
        most = min(MAX_BATCH, config.serve.max_ongoing_requests)
        wait = BATCH_WAIT_S[self.device]
        self.forward = serve.batch(max_batch_size=most, batch_wait_timeout_s=wait)(self._forward)
        threading.Thread(target=self._follow, daemon=True).start()

    def reconfigure(self, user_config: dict[str, str]) -> None:
        """Take what `model` names: `champion`, which is followed from then on, or the number of a version, which stays.

        Ray Serve calls this when a replica starts, and when `user_config` changes; the replica goes on answering.

        Raises:
            UserError: there is no such version, or no champion.
        """
        which = str(user_config["model"])
        self.pinned = None if which == CHAMPION else self.registry.load(which).version
        self._take(which)

    async def score(self, square: Grey) -> ScoreResult | OodRejection | int:
        """The answer to `uint8` (S, S) of `chestai.imaging.preprocess.resize`, or why there is none.

        Where the version sees another size, that size.
        """
        now = self._now()
        if square.shape != (now.size, now.size):
            return now.size
        observed, refusal = await asyncio.to_thread(now.inspect, square)
        if self.config.serve.gate and refusal is not None:
            return OodRejection(refusal, now.model_info, observed)
        answer: ScoreResult = await self.forward((now, square))
        return replace(answer, features={**observed, **answer.features})

    def model_info(self) -> ModelInfo:
        """Which version answers now."""
        return self._now().model_info

    def card(self) -> ModelCard:
        """The card of the version that answers now."""
        return self._now().card

    def check_health(self) -> None:
        """Ray Serve replaces a replica that raises here."""
        self._now()

    def _now(self) -> LoadedModel:
        if self.loaded is None:
            raise RuntimeError("no model is loaded: user_config names none")
        return self.loaded

    def _take(self, which: str) -> None:
        """Load a version beside the one that answers, then let it answer."""
        with self.turn:
            registered = self.registry.load(which)
            if self.loaded is not None and self.loaded.registered.version == registered.version:
                return
            runtime = check_runtime_allowed(
                Runtime.of(self.config.runtime), self.config.runtime, self.registry, registered.version
            )
            self.loaded = load_model(registered, runtime, self.device, self.threads)
            log.info("version %d answers, by %s", registered.version, self.loaded.forward.name)

    def _follow(self) -> None:
        """Take a new champion when the alias moves; what cannot be loaded is told, and the old one goes on."""
        pause = threading.Event()
        while not pause.wait(self.config.serve.follow_seconds):
            if self.loaded is None or self.pinned is not None:
                continue
            try:
                if self.registry.champion() not in (None, self.loaded.registered.version):
                    self._take(CHAMPION)
            except Exception:
                log.exception("the champion could not be followed; version %d goes on", self.loaded.registered.version)

    async def _forward(self, batch: list[tuple[LoadedModel, Grey]]) -> list[ScoreResult]:
        return await asyncio.get_running_loop().run_in_executor(self.forward_thread, _scored, batch)


def _scored(batch: Sequence[tuple[LoadedModel, Grey]]) -> list[ScoreResult]:
    """Each by the version that it came to: for a moment there may be two."""
    answers: dict[int, ScoreResult] = {}
    for one in {id(version): version for version, _ in batch}.values():
        places = [place for place, (version, _) in enumerate(batch) if version is one]
        answers |= dict(zip(places, one.score([batch[place][1] for place in places]), strict=True))
    return [answers[place] for place in range(len(batch))]
