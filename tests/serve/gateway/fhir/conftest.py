"""Fixtures: an endpoint that tells of the gateway's films as FHIR, and the films that are recorded there."""

from pathlib import Path

import pytest
from fastapi import FastAPI

from serve.db.database import Database
from tests.serve.gateway.recorded import Recorded
from tests.serve.support.local import local_app


@pytest.fixture
def app(database: Database, tmp_path: Path) -> FastAPI:
    return local_app(tmp_path, False, "gateway.fhir=true", f"state.url={database.url.render_as_string(False)}")


@pytest.fixture
def recorded(app: FastAPI) -> Recorded:
    return Recorded(app)
