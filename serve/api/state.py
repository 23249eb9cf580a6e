"""The endpoint's state as the routes use it: calls run off the event loop, and a failing database is a 503."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from serve.auth.refreshes import RefreshLog
from serve.auth.refusals import RefusalLog
from serve.db.audit import AuditEvent
from serve.db.database import is_unavailable
from serve.db.outbox import OutboxFull
from serve.db.store import Store
from serve.problems import ApiError
from serve.storage.image_store import ImageStore
from serve.storage.pseudonyms import Pseudonyms

P = ParamSpec("P")
T = TypeVar("T")

DATABASE_ERRORS = (DBAPIError, PoolTimeout)


# Of its own: neither decoding nor a file store that hangs delays the state. Fewer threads than connections in the pool.
STATE_EXECUTOR = ThreadPoolExecutor(8, "state")


@dataclass(frozen=True)
class StateAccess:
    """The store of predictions, reviews, jobs and audit events, received images, refused requests and refreshes."""

    store: Store
    images: ImageStore
    pseudonyms: Pseudonyms
    refusals: RefusalLog
    refreshes: RefreshLog = field(default_factory=RefreshLog)

    async def save(self, write: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Calls a `save_` method of the store; the write is on disk when this returns, even if the database is down.

        Raises:
            ApiError: 503, the database is down, and the outbox is full.
        """
        try:
            await _run_in_state_thread(partial(write, *args, **kwargs))
        except (OutboxFull, OSError) as error:
            raise ApiError(503, "state_full", "nothing more can be recorded now: try again later") from error

    async def audit(self, *events: AuditEvent) -> None:
        """Saves audit events. Raises as `save`."""
        await self.save(self.store.save_events, *events)

    async def read(self, query: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a query.

        Raises:
            ApiError: 503, the database is down.
        """

        def run() -> T:
            with self.store.database.read_session() as session:
                return query(session, *args, **kwargs)

        return await _in_thread(run)

    async def change(self, update: Callable[[Session], T]) -> T:
        """Runs a transaction directly on the database, without the outbox. Raises as `read`."""

        def run() -> T:
            with self.store.database.write_session() as session:
                return update(session)

        return await _in_thread(run)


async def _run_in_state_thread(run: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(STATE_EXECUTOR, run)


async def _in_thread(run: Callable[[], T]) -> T:
    try:
        return await _run_in_state_thread(run)
    except DATABASE_ERRORS as error:
        if not is_unavailable(error):
            raise
        raise database_unavailable() from error


def database_unavailable() -> ApiError:
    """Creates the error for a database that does not respond."""
    return ApiError(503, "state_unavailable", "the database does not respond: try again later")
