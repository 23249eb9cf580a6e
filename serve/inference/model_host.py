"""A model that stays loaded: it follows the champion's alias, and scores images in batches. Needs no Ray."""

import asyncio
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from chestai.config.schema import Config
from chestai.evaluation.champion_status import why_not_champion
from chestai.imaging.preprocess import Grey
from chestai.lake.lake import Lake
from chestai.model.registry import CHAMPION, Registry
from serve.inference.batcher import Batcher
from serve.inference.predictor import LoadedModel, OodRejection, ScoreResult, choose_runtime, load_model
from serve.schemas.inference import ModelInfo
from serve.schemas.operations import ModelCard

MAX_BATCH = 8
# A batch fills while the previous one runs. On a GPU a larger batch costs no more, so waiting for it pays. On a CPU an
# image takes as long in a batch as alone, so waiting would only delay a single request.
BATCH_WAIT_S = {"cuda": 0.005, "cpu": 0.0}

log = logging.getLogger("ray.serve")


class ModelHost:
    """Serves one registered version at a time; each request is handled by a single version from start to end.

    A deployment of Ray Serve, which knows some of its methods by their names, or part of an endpoint on one machine.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.registry = Registry(config.tracking, Lake(config.lake))
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.threads = max(1, len(os.sched_getaffinity(0)) // config.serve.max_replicas)
        self.pinned_version: int | None = None
        self.current: LoadedModel | None = None
        self.load_lock = threading.Lock()  # one version is loaded at a time
        # OpenMP keeps the number of threads per calling thread, so it is set in the one that runs the batches.
        self.batcher = Batcher(
            score_batch,
            min(MAX_BATCH, config.serve.max_ongoing_requests),
            BATCH_WAIT_S[self.device],
            partial(torch.set_num_threads, self.threads),
        )
        threading.Thread(target=self._follow_champion, daemon=True).start()

    def reconfigure(self, user_config: dict[str, str]) -> None:
        """Loads what `model` names: `champion`, which is then followed, or a version number, which stays.

        Ray Serve calls this when a replica starts, and when `user_config` changes; the replica serves meanwhile.

        Raises:
            UserError: There is no such version, or no champion.
        """
        version = str(user_config["model"])
        self.pinned_version = None if version == CHAMPION else self.registry.load(version).version
        self._load(version)

    async def score(self, square: Grey) -> ScoreResult | OodRejection | int:
        """Scores an image.

        Args:
            square: `uint8` (S, S), from `chestai.imaging.preprocess.resize`.

        Returns:
            The result, or why the OOD detector rejected the image; or only the size S that the current version takes,
            if the image has another.
        """
        model = self.loaded_model()
        if square.shape != (model.size, model.size):
            return model.size
        return await self.score_with(model, square)

    async def score_with(self, model: LoadedModel, square: Grey) -> ScoreResult | OodRejection:
        """Scores an image with a version that is or was the current one.

        Args:
            square: `uint8` (S, S) of the version's size S.
        """
        features, rejection = await asyncio.to_thread(model.inspect, square)
        if self.config.serve.gate and rejection is not None:
            return OodRejection(rejection, model.model_info, features)
        result = await self.batcher.submit((model, square))
        return replace(result, features={**features, **result.features})

    def model_info(self) -> ModelInfo:
        """Returns the current version."""
        return self.loaded_model().model_info

    def card(self) -> ModelCard:
        """Returns the card of the current version."""
        return self.loaded_model().card

    def check_health(self) -> None:
        """Raises RuntimeError if no model is loaded; Ray Serve then replaces the replica."""
        self.loaded_model()

    def loaded_model(self) -> LoadedModel:
        """Returns the current version. Raises RuntimeError if none is loaded."""
        if self.current is None:
            raise RuntimeError("no model is loaded: user_config names none")
        return self.current

    def _load(self, version: str) -> None:
        """Loads a version next to the current one, then replaces it."""
        with self.load_lock:
            registered = self.registry.load(version)
            if self.current is not None and self.current.registered.version == registered.version:
                return
            runtime = choose_runtime(self.config.runtime, self.registry, registered.version, self.device)
            loaded = load_model(registered, runtime, self.device, self.threads)
            self.current = replace(loaded, not_champion=why_not_champion(self.registry, registered.version))
            log.info("serving version %d on %s", registered.version, self.current.forward.name)

    def _follow_champion(self) -> None:
        """Loads the new champion when the alias moves; if that fails, the old one stays, as a pinned one does."""
        pause = threading.Event()
        while not pause.wait(self.config.serve.follow_seconds):
            if self.current is None:
                continue
            try:
                champion = self.registry.champion()
                if self.pinned_version is None and champion not in (None, self.current.registered.version):
                    self._load(CHAMPION)
                self._update_standing()
            except Exception:
                log.exception("the new champion could not be loaded; version %d stays", self.current.registered.version)

    def _update_standing(self) -> None:
        """Notes whether the current version is the champion by now."""
        with self.load_lock:
            current = self.loaded_model()
            standing = why_not_champion(self.registry, current.registered.version)
            if standing != current.not_champion:
                self.current = replace(current, not_champion=standing)


def score_batch(batch: Sequence[tuple[LoadedModel, Grey]]) -> list[ScoreResult]:
    """Scores each image with its own version: while a new one is loaded, a batch may have two."""
    results: dict[int, ScoreResult] = {}
    for model in {id(model): model for model, _ in batch}.values():
        indices = [index for index, (other, _) in enumerate(batch) if other is model]
        results |= dict(zip(indices, model.score([batch[index][1] for index in indices]), strict=True))
    return [results[index] for index in range(len(batch))]
