"""Settings of the sign-in at an identity provider, and of sessions, that cannot be used."""

import json
from pathlib import Path

import pytest

from chestai.config import load as conf
from chestai.errors import UserError
from tests.serve.support.identity_provider import sign_in_settings
from tests.serve.support.local import local_app
from tests.serve.support.tokens import RSA, public_jwk

JWKS = ["auth.jwt.issuer=https://id", "auth.jwt.jwks=/jwks.json"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["auth.oidc.client_id=c", *JWKS], "oidc.client_id needs oidc.authorize_url"),
        (sign_in_settings("https://id"), "needs jwt.issuer, and jwt.jwks or jwt.secret"),
        ([*sign_in_settings("http://id.example.org"), *JWKS], "write an https URL, or one of http on this machine"),
        ([*sign_in_settings("ftp://localhost"), *JWKS], "write an https URL, or one of http on this machine"),
        ([*sign_in_settings("https://"), *JWKS], "write an https URL, or one of http on this machine"),
        ([*sign_in_settings("https://id:x"), *JWKS], "auth.oidc.authorize_url"),
        ([*sign_in_settings("https://id", "http://xray.example.org"), *JWKS], "write an https URL"),
        ([*sign_in_settings("https://id", "https://xray/chestai"), *JWKS], "/session/oidc/callback"),
        (["auth.session.idle_minutes=1"], "auth.session.idle_minutes=1"),
        (["auth.session.hours=0"], "auth.session.hours=0"),
        (["auth.session.hours=721"], "auth.session.hours=721"),
    ],
)
def test_wrong_settings_are_rejected_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as raised:
        conf.load(["cluster=laptop", *overrides])
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(("content", "message"), [(None, "No such file"), (b" \n", "is empty"), (b"\xff", "utf-8")])
def test_unusable_secrets_are_rejected_in_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [public_jwk(RSA, "r")]}))
    provider = [*sign_in_settings("https://id"), *JWKS[:1], f"auth.jwt.jwks={tmp_path / 'jwks.json'}"]
    with pytest.raises(UserError, match=message) as raised:
        local_app(tmp_path, False, *provider, f"auth.oidc.client_secret={file}")
    assert str(file) in str(raised.value) and "\n" not in str(raised.value)
