"""HTTPS on real Ray Serve, and settings that are rejected before anything starts."""

import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
import ray

from chestai.config import load as conf
from chestai.config.schema import Config, Tls
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from serve.auth.bootstrap import add_first_admin
from serve.db.database import Database, database_url
from serve.db.records import load_study, record_prediction
from serve.deployments.app import deploy, stop
from serve.deployments.tls import (
    PASSWORD_VARIABLE,
    check_exposure,
    check_proxy_certificate,
    https_options,
    network_warning,
)
from serve.storage.image_store import ImageStore
from tests.serve.support.certificates import copy_with, create_certificate
from tests.serve.support.samples import make_image as old_image
from tests.serve.support.samples import make_prediction, sha
from tests.support.models import image


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return create_certificate(tmp_path_factory.mktemp("tls"), "server", "open sesame")


@pytest.fixture(scope="module")
def secured(ray_cluster: None, champion: tuple[Config, Bundle], tls: Tls) -> Iterator[tuple[str, str, Config]]:
    """URL, key and config of an endpoint with an encrypted key file. It keeps images for a day; one is older."""
    config = champion[0]
    config = copy_with(
        config,
        serve=copy_with(config.serve, tls=tls, max_replicas=1),
        state=copy_with(config.state, keep_images=True, retention_days=1.0),
    )
    database, kept = Database(database_url(config)), ImageStore(Lake(config.lake))
    database.migrate()
    with database.write_session() as session:
        record_prediction(session, old_image("old", uri=kept.save(sha("old"), b"old")), make_prediction("old"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PASSWORD_VARIABLE, "open sesame")
        url, _ = deploy(config)
    key = add_first_admin(database)
    assert key is not None
    yield url, key, config
    stop()


@pytest.mark.slow
def test_serves_https_only(secured: tuple[str, str, Config], tls: Tls) -> None:
    url, key, _ = secured
    assert url.startswith("https://127.0.0.1:") and tls.certificate is not None
    trusting = ssl.create_default_context(cafile=tls.certificate)
    answer = httpx.post(f"{url}/infer", content=image(1), headers={"X-API-Key": key}, verify=trusting, timeout=60)
    assert answer.status_code == 200, answer.text
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{url}/health/live", timeout=60)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url.replace('https', 'http')}/health/live", timeout=60)
    old = ssl.create_default_context(cafile=tls.certificate)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health/live", verify=old, timeout=60)


@pytest.mark.slow
def test_endpoint_stores_images_and_purges_old_ones(secured: tuple[str, str, Config], tls: Tls) -> None:
    """An image stored today can be explained; the old one was deleted when the endpoint started."""
    url, key, config = secured
    trusting = ssl.create_default_context(cafile=tls.certificate)
    with httpx.Client(base_url=url, headers={"X-API-Key": key}, verify=trusting, timeout=60) as client:
        image_id = client.post("/infer", content=image(2)).json()["image_id"]
        shown = client.get(f"/images/{image_id}/heatmap", params={"label": "Mass"})
        assert shown.status_code == 200 and shown.headers["content-type"] == "image/png"
    kept = ImageStore(Lake(config.lake))
    assert kept.read(image_id) == image(2) and not Path(kept.uri(sha("old"))).exists()
    database = Database(database_url(config))
    with database.read_session() as session:
        assert load_study(session, sha("old")) is None
    database.close()


def make_broken_tls(folder: Path, case: str) -> Tls:
    good, other = create_certificate(folder, "good"), create_certificate(folder, "other")
    locked = create_certificate(folder, "locked", "secret")
    (folder / "text.pem").write_text("I am a text.")
    return {
        "no key": Tls(certificate=good.certificate),
        "no certificate": Tls(key=good.key),
        "another's key": Tls(certificate=good.certificate, key=other.key),
        "missing": Tls(certificate=str(folder / "missing.pem"), key=good.key),
        "a folder": Tls(certificate=good.certificate, key=str(folder)),
        "text": Tls(certificate=str(folder / "text.pem"), key=good.key),
        "exchanged": Tls(certificate=good.key, key=good.certificate),
        "locked": locked,
    }[case]


BROKEN = {
    "no key": ["serve.tls.key is missing"],
    "no certificate": ["serve.tls.certificate is missing"],
    "another's key": ["cannot be used together", "KEY_VALUES_MISMATCH"],
    "missing": ["serve.tls.certificate=", "missing.pem cannot be read"],
    "a folder": ["serve.tls.key=", "cannot be read"],
    "text": ["cannot be used together"],
    "exchanged": ["cannot be used together"],
    "locked": ["cannot be used together", PASSWORD_VARIABLE],
}


@pytest.mark.parametrize(("case", "words"), BROKEN.items(), ids=BROKEN)
def test_unusable_files_are_a_user_error(
    case: str, words: Sequence[str], champion: tuple[Config, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    config = champion[0]
    started = ray.is_initialized()
    with pytest.raises(UserError) as caught:
        deploy(copy_with(config, serve=copy_with(config.serve, tls=make_broken_tls(tmp_path, case))))
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)
    assert ray.is_initialized() == started, "nothing was started"


def test_password_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = create_certificate(tmp_path, "locked", "secret")
    for wrong in ("", "wrong"):
        monkeypatch.setenv(PASSWORD_VARIABLE, wrong)
        with pytest.raises(UserError, match="cannot be used together"):
            https_options(locked)
    monkeypatch.setenv(PASSWORD_VARIABLE, "secret")
    assert https_options(locked)["ssl_keyfile_password"] == "secret"
    assert https_options(Tls()) == {}


def test_proxies_of_ray_serve_need_an_ecdsa_certificate(champion: tuple[Config, Bundle], tmp_path: Path) -> None:
    """They take no list of ciphers, so with an RSA key they would agree to ciphers without forward secrecy."""
    started, config = ray.is_initialized(), champion[0]
    tls = create_certificate(tmp_path, "rsa", is_rsa=True)
    with pytest.raises(UserError, match="use an ECDSA certificate") as raised:
        deploy(copy_with(config, serve=copy_with(config.serve, tls=tls)))
    assert str(tls.certificate) in str(raised.value) and "\n" not in str(raised.value)
    assert ray.is_initialized() == started, "nothing was started"
    check_proxy_certificate(create_certificate(tmp_path, "ec"))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.7", False),
        ("no-such-host.invalid", False),
    ],
)
def test_other_hosts_need_authentication_and_warn_without_https(host: str, loopback: bool, tmp_path: Path) -> None:
    keyless = conf.load(["cluster=laptop", f'serve.host="{host}"', "auth.required=false"])
    if loopback:
        check_exposure(keyless)
    else:
        with pytest.raises(UserError, match=r"keep auth.required=true") as caught:
            deploy(keyless)
        assert "\n" not in str(caught.value)
    keyed = conf.load(["cluster=laptop", f'serve.host="{host}"'])
    check_exposure(keyed)
    assert (network_warning(keyed) is None) == loopback
    encrypted = copy_with(keyed, serve=copy_with(keyed.serve, tls=create_certificate(tmp_path, "server")))
    assert network_warning(encrypted) is None
