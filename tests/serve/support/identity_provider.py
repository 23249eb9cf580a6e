"""An identity provider on loopback: it signs everybody in as one user, and checks the code flow with PKCE."""

import asyncio
import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import jwt
from fastapi import FastAPI, Form, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from tests.serve.support.tokens import RSA, claims

CLIENT_ID, CLIENT_SECRET = "chest ai:1", "s%cret/+"
ENDPOINT = "http://localhost:8000"


def sign_in_settings(url: str, endpoint: str = ENDPOINT) -> list[str]:
    """Returns the settings for a public client of the provider at a URL, as overrides."""
    return [
        f"auth.oidc.client_id='{CLIENT_ID}'",
        f"auth.oidc.authorize_url='{url}/authorize?tenant=1'",
        f"auth.oidc.token_url={url}/token",
        f"auth.oidc.redirect_url={endpoint}/session/oidc/callback",
    ]


@dataclass
class Provider:
    """What the provider was asked, and how it behaves.

    secret: of the client; None for a public one. changes: claims that differ from a right ID token. answer: instead of
    an ID token. delay_s: before a token.
    """

    secret: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    answer: Response | None = None
    delay_s: float = 0.0
    queries: list[dict[str, str]] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)  # those that were not used yet
    token_requests: int = 0

    def create_app(self) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/authorize", self.authorize, methods=["GET"])
        app.add_api_route("/token", self.give_token, methods=["POST"])
        return app

    async def authorize(self, request: Request) -> Response:
        query = dict(request.query_params)
        self.queries.append(query)
        code = f"code-{len(self.queries)}"
        self.codes[code] = query
        return RedirectResponse(f"{query['redirect_uri']}?code={code}&state={query['state']}", 302)

    async def give_token(
        self,
        request: Request,
        grant_type: str = Form(),
        code: str = Form(),
        redirect_uri: str = Form(),
        code_verifier: str = Form(),
        client_id: str | None = Form(None),
    ) -> Response:
        self.token_requests += 1
        await asyncio.sleep(self.delay_s)
        if self.answer is not None:
            return self.answer
        if not self._knows_client(request.headers.get("authorization"), client_id):
            return JSONResponse({"error": "invalid_client"}, 401)
        query = self.codes.pop(code, None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(code_verifier.encode()).digest()).rstrip(b"=").decode()
        asked = (grant_type, redirect_uri, challenge, "S256")
        if query is None or asked != (
            "authorization_code",
            query["redirect_uri"],
            query["code_challenge"],
            query["code_challenge_method"],
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        content = claims(**{"aud": CLIENT_ID, "nonce": query["nonce"], **self.changes})
        return JSONResponse({"id_token": jwt.encode(content, RSA, "RS256"), "token_type": "Bearer"})

    def _knows_client(self, authorization: str | None, client_id: str | None) -> bool:
        if self.secret is None:
            return (authorization, client_id) == (None, CLIENT_ID)
        name, _, secret = base64.b64decode((authorization or "").removeprefix("Basic ")).decode().partition(":")
        return client_id is None and (unquote(name), unquote(secret)) == (CLIENT_ID, self.secret)
