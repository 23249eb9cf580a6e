"""What routes need, made once a process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from chestai.lake import Lake
from chestai.sections import Serve
from serve.problems import overloaded
from serve.remote import Scorer


@dataclass(frozen=True)
class Services:
    """scorer: answers for images. lake: whose images have heatmaps. limits: of the config."""

    scorer: Scorer
    lake: Lake
    limits: Serve

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """The deadline of a request.

        Raises:
            Refused: it passed.
        """
        try:
            async with asyncio.timeout(self.limits.deadline_seconds):
                yield
        except TimeoutError as error:
            raise overloaded(f"no answer within {self.limits.deadline_seconds:g} s: try again") from error


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Used = Annotated[Services, Depends(_services)]
