"""What the gateway keeps of an endpoint's answer."""

import io
from pathlib import Path

from chestai.results.film_result import ResultBand
from serve.gateway.intake.endpoint import EndpointClient, Scored
from tests.chestai.results.samples import FILM
from tests.serve.gateway.site import make_film
from tests.serve.support.http_server import run_server
from tests.serve.support.local import local_app, serve_version
from tests.support.models import add_confidence, make_bundle


def test_keeps_the_bands_of_the_version_that_scored_the_film(tmp_path: Path) -> None:
    app, bundle, file = local_app(tmp_path, False), add_confidence(make_bundle()), io.BytesIO()
    serve_version(app, 1, bundle)
    make_film(0).save_as(file)
    with run_server(app) as (host, port), EndpointClient(f"http://{host}:{port}", None) as client:
        scored = client.score(file.getvalue())
    assert isinstance(scored, Scored) and bundle.confidence is not None
    stored = type(scored.result).model_validate_json(scored.result.model_dump_json())
    assert stored == scored.result and stored.bands
    for one in stored.attach(FILM).findings:
        band = bundle.confidence.confidence(one.finding, one.probability)
        assert one.band == (None if band is None else ResultBand(band.low, band.high, band.n))
