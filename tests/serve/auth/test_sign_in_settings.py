"""Settings of sessions and of the sign-in at an identity provider: wrong ones are rejected before anything starts."""

import pytest

from chestai.config import load as conf
from chestai.errors import UserError
from tests.serve.support.identity_provider import sign_in_settings

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
