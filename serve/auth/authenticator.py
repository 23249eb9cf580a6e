"""Authentication of a request by its headers, in two steps: what memory knows, and what the database must say."""

from serve.auth.api_keys import KEY_PREFIX, ApiKeyAuthenticator
from serve.auth.oidc import OidcVerifier
from serve.auth.permissions import ANONYMOUS, Principal

BEARER = "bearer "
MAX_CREDENTIAL_LENGTH = 8192  # characters


class Authenticator:
    """Accepts API keys and, where they are configured, tokens of an identity provider."""

    def __init__(self, keys: ApiKeyAuthenticator, tokens: OidcVerifier | None, required: bool = True) -> None:
        self._keys, self._tokens, self._required = keys, tokens, required

    def recall(self, authorization: str | None, api_key: str | None = None) -> tuple[Principal | None, str | None]:
        """Returns the principal of a request as far as it is known without the database, and the API key to look up.

        Args:
            authorization: Header `Authorization`: `Bearer` and a key or token.
            api_key: Header `X-API-Key`, which takes precedence.

        Returns:
            The principal, None for a 401; and None if that is final, or the key that `look_up` decides about.
        """
        credential = api_key if api_key is not None else _bearer_credential(authorization)
        if credential is None:
            return None if self._required else ANONYMOUS, None
        if len(credential) > MAX_CREDENTIAL_LENGTH:
            return None, None
        if credential.startswith(KEY_PREFIX):
            return self._keys.recall(credential), credential
        return None if self._tokens is None else self._tokens.authenticate(credential), None

    def look_up(self, key: str) -> Principal | None:
        """Returns the principal of an API key; None, for a 401, if it is not valid.

        Raises:
            DBAPIError, TimeoutError: The database is down, and the key is not cached; the response is 503.
        """
        return self._keys.authenticate(key)


def _bearer_credential(header: str | None) -> str | None:
    """Returns an empty string, which is never valid, for a header of another scheme."""
    if header is None or not header.lower().startswith(BEARER):
        return header if header is None else ""
    return header[len(BEARER) :].strip()
