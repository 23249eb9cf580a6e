"""Authentication of a request by its credential, in two steps: what memory knows, and what the database must say."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from serve.auth.api_keys import KEY_PREFIX, ApiKeyAuthenticator
from serve.auth.oidc import OidcVerifier
from serve.auth.permissions import ANONYMOUS, Principal
from serve.auth.sessions import BrowserSession, SessionAuthenticator

BEARER = "bearer "
MAX_CREDENTIAL_LENGTH = 8192  # characters


@dataclass(frozen=True)
class Caller:
    """Who sent a request, as far as memory knows.

    principal: None if unknown; for a 401, if that is final. look_up: asks the database, which decides; None if
    `principal` is final. It raises DBAPIError or TimeoutError if the database is down and the credential is not cached.
    """

    principal: Principal | None
    look_up: Callable[[], Principal | None] | None = None


class Authenticator:
    """Accepts API keys, sessions and, where they are configured, tokens of an identity provider."""

    def __init__(
        self,
        keys: ApiKeyAuthenticator,
        sessions: SessionAuthenticator,
        tokens: OidcVerifier | None,
        required: bool = True,
    ) -> None:
        self._keys, self._sessions, self._tokens, self._required = keys, sessions, tokens, required

    def recall(
        self, authorization: str | None, api_key: str | None, session: str | None = None, is_use: bool = True
    ) -> Caller:
        """Returns the caller that the first credential of a request names.

        Args:
            authorization: Header `Authorization`: `Bearer` and a key or token.
            api_key: Header `X-API-Key`, which takes precedence.
            session: Token of the cookie, which counts only without these headers.
            is_use: Whether the session counts as used now.
        """
        credential = api_key if api_key is not None else _bearer_credential(authorization)
        if credential is None:
            return Caller(self._nobody) if session is None else self._recall_session(session, is_use)
        if len(credential) > MAX_CREDENTIAL_LENGTH:
            return Caller(None)
        if credential.startswith(KEY_PREFIX):
            return self.recall_key(credential)
        return Caller(None if self._tokens is None else self._tokens.authenticate(credential))

    def recall_key(self, key: str) -> Caller:
        """Returns the caller that an API key names."""
        return Caller(self._keys.recall(key), partial(self._keys.authenticate, key))

    def _recall_session(self, token: str, is_use: bool) -> Caller:
        """Returns the caller of a session. One that has ended is no credential, since the browser sends it unasked."""

        def look_up() -> Principal | None:
            return _principal(self._sessions.authenticate(token, is_use)) or self._nobody

        return Caller(_principal(self._sessions.recall(token)), look_up)

    @property
    def _nobody(self) -> Principal | None:
        """The caller without a credential."""
        return None if self._required else ANONYMOUS


def _principal(session: BrowserSession | None) -> Principal | None:
    return None if session is None else session.principal


def _bearer_credential(header: str | None) -> str | None:
    """Returns an empty string, which is never valid, for a header of another scheme."""
    if header is None or not header.lower().startswith(BEARER):
        return header if header is None else ""
    return header[len(BEARER) :].strip()
