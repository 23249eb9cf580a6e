"""Signing in at an identity provider: the code flow (RFC 6749) with PKCE (RFC 7636) and OpenID Connect's nonce.

The browser carries three secrets of its sign-in, which the callback takes back. `state` ties the callback to the
browser that began, `verifier` the code to whoever asked for it, and `nonce` the ID token to this sign-in.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from base64 import urlsafe_b64encode
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from chestai.config.schema import Oidc
from chestai.errors import UserError
from serve.auth.oidc import OidcVerifier
from serve.auth.permissions import Principal
from serve.problems import ApiError

log = logging.getLogger("chestai.auth")

TIMEOUT_S = 5.0  # of each step of the request to the provider
DEADLINE_S = 10.0  # of the whole
SECRETS_PATTERN = re.compile(r"([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True)
class SignInSecrets:
    """What a browser keeps while its user is at the provider; 256 random bits each."""

    state: str
    verifier: str
    nonce: str

    @classmethod
    def draw(cls) -> "SignInSecrets":
        """Draws new secrets."""
        return cls(*(secrets.token_urlsafe(32) for _ in range(3)))

    @classmethod
    def parse(cls, text: str | None) -> "SignInSecrets | None":
        """Reads the value of a cookie; None if it is no such value."""
        match = SECRETS_PATTERN.fullmatch(text or "")
        return None if match is None else cls(*match.groups())

    def __str__(self) -> str:
        """Returns the value of the cookie."""
        return ".".join(astuple(self))

    @property
    def challenge(self) -> str:
        """The verifier as the provider gets it first (S256)."""
        return urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()


class OidcSignIn:
    """Sends browsers to the provider, and turns what they bring back into principals."""

    def __init__(self, settings: Oidc, tokens: OidcVerifier) -> None:
        """
        Raises:
            UserError: The file of the client's secret cannot be read.
        """
        self._settings, self._tokens = settings, tokens
        self._client_id, self._token_url = settings.client_id or "", settings.token_url or ""
        self._secret = None if settings.client_secret is None else _read_secret(settings.client_secret)

    def authorize_url(self, sign_in: SignInSecrets) -> str:
        """Returns where the user signs in."""
        return str(
            httpx.URL(self._settings.authorize_url or "").copy_merge_params(
                {
                    "response_type": "code",
                    "client_id": self._client_id,
                    "redirect_uri": self._settings.redirect_url,
                    "scope": self._settings.scope,
                    "state": sign_in.state,
                    "nonce": sign_in.nonce,
                    "code_challenge": sign_in.challenge,
                    "code_challenge_method": "S256",
                }
            )
        )

    async def exchange_code(self, code: str, verifier: str) -> str:
        """Returns the ID token that the provider gives for a code.

        Raises:
            ApiError: 400, the provider refuses the code; 503, it does not answer in time, or fails.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._settings.redirect_url,
            "code_verifier": verifier,
        }
        try:
            async with asyncio.timeout(DEADLINE_S):
                response = await self._post(form)
        except (httpx.HTTPError, TimeoutError) as error:
            log.warning("auth.oidc.token_url=%s does not answer (%s)", self._token_url, type(error).__name__)
            raise _provider_unavailable() from error
        content = _parse_json(response)
        if response.status_code >= 500:
            log.warning("auth.oidc.token_url=%s answers %d", self._token_url, response.status_code)
            raise _provider_unavailable()
        token = content.get("id_token")
        if response.status_code != 200 or not isinstance(token, str):
            reason = str(content.get("error", "without an ID token"))[:100]
            log.warning("auth.oidc.token_url=%s answers %d, %r", self._token_url, response.status_code, reason)
            raise sign_in_failed("the identity provider gives no ID token for the code: sign in again")
        return token

    def authenticate(self, id_token: str, nonce: str) -> Principal:
        """Returns the principal of an ID token. May block while the provider's keys are read.

        Raises:
            ApiError: 400, it is not valid, not of this sign-in, or without a role.
        """
        principal = self._tokens.authenticate_sign_in(id_token, self._client_id, nonce)
        if principal is None:
            raise sign_in_failed("the ID token is not valid here, or gives the user no role")
        return principal

    async def _post(self, form: dict[str, Any]) -> httpx.Response:
        """Sends a form as the client, with its secret (RFC 6749, 2.3.1) or, for a public one, its name alone."""
        auth = None
        if self._secret is None:
            form = {**form, "client_id": self._client_id}
        else:
            auth = httpx.BasicAuth(quote(self._client_id, safe=""), quote(self._secret, safe=""))
        trust_proxies = self._token_url.startswith("https:")  # what is http is on this machine
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=trust_proxies) as client:
            return await client.post(self._token_url, data=form, auth=auth or httpx.USE_CLIENT_DEFAULT)


def find_sign_in(cookie: str | None, state: str | None) -> SignInSecrets:
    """Returns the secrets of the sign-in that a callback belongs to.

    Raises:
        ApiError: 400, this browser began no such sign-in, or too long ago.
    """
    sign_in = SignInSecrets.parse(cookie)
    if sign_in is None or not hmac.compare_digest(sign_in.state.encode(), (state or "").encode()):
        raise sign_in_failed("this browser began no such sign-in within the last 10 minutes: sign in again")
    return sign_in


def sign_in_failed(detail: str) -> ApiError:
    """Creates the error for a callback that signs nobody in."""
    return ApiError(400, "sign_in_failed", detail)


def _provider_unavailable() -> ApiError:
    return ApiError(503, "provider_unavailable", "the identity provider does not answer: try again later")


def _parse_json(response: httpx.Response) -> dict[str, Any]:
    try:
        content = response.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _read_secret(file: str) -> str:
    try:
        secret = Path(file).expanduser().read_text().strip()
    except (OSError, UnicodeError) as error:
        raise UserError(f"auth.oidc.client_secret={file} cannot be read: {error}") from error
    if not secret:
        raise UserError(f"auth.oidc.client_secret={file} is empty")
    return secret
