"""From the headers of a request to who asks."""

from serve.auth.api_keys import MARK, ApiKeyAuthenticator
from serve.auth.oidc import OidcVerifier
from serve.auth.permissions import ANYBODY, Principal

BEARER = "bearer "
MOST = 8192  # characters of a token


class Authenticator:
    """API keys and, where they are configured, tokens."""

    def __init__(self, keys: ApiKeyAuthenticator, tokens: OidcVerifier | None, required: bool = True) -> None:
        self._keys, self._tokens, self._required = keys, tokens, required

    def principal(self, authorization: str | None, api_key: str | None = None) -> Principal | None:
        """Who asks; None where the answer is 401: nothing was shown, or nothing that is good.

        Args:
            authorization: the header `Authorization`: `Bearer`, and a key or a token.
            api_key: the header `X-API-Key`, which goes before the other.

        Raises:
            DBAPIError: the database is away, and the key was not seen lately: the answer is 503.
        """
        shown = api_key if api_key is not None else _bearer(authorization)
        if shown is None:
            return None if self._required else ANYBODY
        if len(shown) > MOST:
            return None
        if shown.startswith(MARK):
            return self._keys.principal(shown)
        return None if self._tokens is None else self._tokens.principal(shown)


def _bearer(header: str | None) -> str | None:
    if header is None or not header.lower().startswith(BEARER):
        return header if header is None else ""
    return header[len(BEARER) :].strip()
