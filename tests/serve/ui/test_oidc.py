"""Signing in by the button, through an identity provider of another site."""

import json
from pathlib import Path

from playwright.sync_api import Browser
from sqlalchemy import select

from serve.db.models import AuditRow
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.http_server import find_port, run_server
from tests.serve.support.identity_provider import Provider, sign_in_settings
from tests.serve.support.tokens import ISSUER, RSA, public_jwk
from tests.serve.ui.site import find_violations, open_site, poll


def test_button_leads_to_the_page_that_was_wanted(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [public_jwk(RSA, "r")]}))
    tokens = [f"auth.jwt.issuer={ISSUER}", f"auth.jwt.jwks={tmp_path / 'jwks.json'}"]
    port = find_port()
    with run_server(Provider().create_app()) as (host, provider_port):
        provider = f"http://{host}:{provider_port}"
        settings = [*tokens, *sign_in_settings(provider, f"http://localhost:{port}")]
        with open_site(browser, tmp_path, *settings, port=port) as site:
            wanted = f"/ui/studies/{site.upload(encode_image(make_films()[0]))}?split=val"
            page = site.open(wanted, reader=None)
            button = page.get_by_role("link", name="Sign in with your institution")
            button.wait_for()
            assert find_violations(page) == []
            button.click()
            poll(lambda: page.locator(".findings tbody tr").count(), "the study")
            assert page.url == site.url + wanted
            assert "oidc:rita" in page.inner_text("header")
            page.reload()
            poll(lambda: page.locator(".findings tbody tr").count(), "the study after a reload")
            with site.services.state.store.database.read_session() as session:
                found = session.scalars(select(AuditRow.detail).where(AuditRow.action == "session")).all()
            assert found == ['{"method":"oidc"}']
            elsewhere = [fault for fault in site.faults if not fault.startswith(provider)]
            assert elsewhere == [] and len(site.faults) == 1, "nowhere but to the provider, once"
            site.faults.clear()
