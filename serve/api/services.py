"""What routes need, made once a process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from chestai.config.schema import Config
from chestai.imaging.preprocess import Grey
from chestai.lake.lake import Lake
from serve.auth.api_keys import ApiKeyAuthenticator
from serve.auth.authenticator import Authenticator
from serve.auth.oidc import OidcVerifier
from serve.auth.rate_limit import RateLimiter
from serve.db.audit import AuditEvent
from serve.db.outbox import OutboxFull
from serve.db.store import Store
from serve.inference.batch_jobs import JobRunner
from serve.inference.predictor import ScoreResult
from serve.inference.rollout import Canary, Shadow
from serve.inference.scorer import Scorer
from serve.monitoring.client import MonitorClient
from serve.monitoring.reporter import EventReporter
from serve.problems import ApiError, overloaded
from serve.storage.allowed_prefixes import check_prefixes
from serve.storage.image_store import ImageStore

T = TypeVar("T")


@dataclass(frozen=True)
class Services:
    """What routes need.

    scorer: answers for images. lake: whose images have heatmaps. store: what is remembered. identity: who asks.
    watch: counts for the whole endpoint. notices: what it is told of this process. known, strangers: how often
    users may ask, by name, and those without a good key, by address. jobs: who does batch jobs, None: nobody.
    kept: the images that were received, where they are kept. places: for requests whose images are worked on.
    canary, shadow: where there is one.
    """

    config: Config
    scorer: Scorer
    lake: Lake
    kept: ImageStore
    store: Store
    identity: Authenticator
    watch: MonitorClient
    notices: EventReporter
    known: RateLimiter
    strangers: RateLimiter
    jobs: JobRunner | None
    places: asyncio.Semaphore
    canary: Canary | None = None
    shadow: Shadow | None = None

    @classmethod
    def of(
        cls,
        config: Config,
        scorer: Scorer,
        watch: MonitorClient,
        jobs: JobRunner | None,
        canary: Scorer | None = None,
        shadow: Scorer | None = None,
    ) -> "Services":
        """By the config, over a model and a watch.

        Raises:
            UserError: the database, the keys of tokens or the prefixes that the config names cannot be used.
        """
        check_prefixes(config.serve.prefixes)
        store, named = Store(config), config.auth.jwt
        tokens = OidcVerifier(named) if named.secret or named.jwks else None
        identity = Authenticator(ApiKeyAuthenticator(store.database), tokens, config.auth.required)
        notices = EventReporter(watch, store.counts)
        known, strangers = (RateLimiter(config.auth.requests_per_minute, config.auth.burst) for _ in range(2))
        limits, lake = config.serve, Lake(config.lake)
        wait_s, share = limits.deadline_seconds, limits.canary.share
        return cls(
            config,
            scorer,
            lake,
            ImageStore(lake),
            store,
            identity,
            watch,
            notices,
            known,
            strangers,
            jobs,
            asyncio.Semaphore(limits.places),
            None if canary is None else Canary(canary, share, wait_s, notices.record_canary),
            None if shadow is None else Shadow(shadow, wait_s, store.save_shadow, notices.record_shadow),
        )

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """The deadline of a request.

        Raises:
            Refused: it passed.
        """
        seconds = self.config.serve.deadline_seconds
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raise overloaded(f"no answer within {seconds:g} s: try again") from error

    def check_place(self) -> None:
        """Raises `Refused` where `place` would now."""
        if self.places.locked():
            raise overloaded("all replicas are busy and the queue is full: try again")

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place among the images that are worked on; there are as many as the model may take or keep waiting.

        Who finds none is told so before their image is decoded, which would take from those that have one.

        Raises:
            Refused: there is none.
        """
        self.check_place()
        async with self.places:
            yield

    async def score(self, image_id: str, grey: Grey) -> ScoreResult:
        """The answer to an image that came in, of the canary where it is one of its share.

        Raises:
            Unlike: it is no frontal chest radiograph.
            Refused: there is no room for it.
        """
        scored = None if self.canary is None else await self.canary.score(image_id, grey)
        return await self.scorer.score(grey) if scored is None else scored

    async def keep(self, write: Callable[[], None]) -> None:
        """Do a write of the store; it is on disk when this returns, also while the database is away.

        Raises:
            Refused: no more can be kept for a database that is away.
        """
        try:
            await asyncio.to_thread(write)
        except (OutboxFull, OSError) as error:
            raise ApiError(503, "state_full", "what was answered cannot be kept any more: try again later") from error

    async def look(self, read: Callable[[Session], T]) -> T:
        """Read from the database.

        Raises:
            Refused: it is away.
        """

        def reading() -> T:
            with self.store.database.read_session() as session:
                return read(session)

        try:
            return await asyncio.to_thread(reading)
        except (DBAPIError, PoolTimeout) as error:
            raise database_unavailable() from error

    async def note(self, *events: AuditEvent) -> None:
        """Keep events in the audit. Raises as `keep`."""
        await self.keep(lambda: self.store.save_events(*events))


def database_unavailable() -> ApiError:
    """The database does not answer."""
    return ApiError(503, "state_unavailable", "the database does not answer: try again later")


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]
