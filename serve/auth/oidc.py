"""Tokens (JWT) of an identity provider (OpenID Connect).

The key determines the algorithm, never the token: a shared secret is for HS256 only, an RSA key for RS256, a P-256 key
for ES256 (RFC 8725). This rejects `none`, and a public key used as a secret. Keys in the token itself (`jwk`, `jku`,
`x5u`) are ignored.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt

from chestai.config.schema import Jwt
from chestai.errors import UserError
from serve.auth.jwks import KeySet
from serve.auth.permissions import ROLES, Principal, Role

LEEWAY_S = 30  # between the provider's clock and ours
SECRET_BYTES = 32  # of HS256, RFC 7518
MAX_NAME_LENGTH = 190
TOKEN_TYPES = (None, "jwt", "at+jwt")  # header `typ`: access tokens (RFC 9068), not those for logout and the like


class OidcVerifier:
    """Verifies tokens."""

    def __init__(self, settings: Jwt) -> None:
        """
        Raises:
            UserError: A file cannot be read, the secret is too short, or the key set is invalid.
        """
        self._settings = settings
        self._secret = None if settings.secret is None else _read_secret(settings.secret)
        self._keys = None if settings.jwks is None else KeySet(settings.jwks)

    def authenticate(self, token: str) -> Principal | None:
        """Returns the principal of a token; None if its signature, issuer, audience, time, name or role is invalid.

        The name is `oidc:` and the claim `sub`, so no token can impersonate the owner of an API key.
        """
        claims = self._verify(token, self._settings.audience)
        return None if claims is None else self._find_principal(claims)

    def authenticate_sign_in(self, id_token: str, client_id: str, nonce: str) -> Principal | None:
        """Returns the principal of an ID token; None as `authenticate`, or if it is of another client or sign-in.

        Its audience is the client, as OpenID Connect asks, whatever `auth.jwt.audience` is.
        """
        claims = self._verify(id_token, client_id)
        if claims is None or claims.get("azp", client_id) != client_id or claims.get("nonce") != nonce:
            return None
        return self._find_principal(claims)

    def _verify(self, token: str, audience: str) -> Mapping[str, Any] | None:
        """Returns the claims of a token for an audience; None if its signature, issuer, audience or time is invalid."""
        try:
            key = self._find_key(jwt.get_unverified_header(token))
            if key is None:
                return None
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key[1],
                algorithms=[key[0]],
                issuer=self._settings.issuer,
                audience=audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError):
            return None
        return claims

    def _find_principal(self, claims: Mapping[str, Any]) -> Principal | None:
        """Returns the principal of valid claims; None without a name or role."""
        role, name = _find_role(claims, self._settings.role_claim), claims["sub"]
        if role is None or not name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
            return None
        return Principal(f"oidc:{name}", role)

    def _find_key(self, header: Mapping[str, Any]) -> tuple[str, Any] | None:
        """Returns the algorithm and key that the token must have been signed with; None for a token of another type."""
        kind = header.get("typ")
        if (kind.lower() if isinstance(kind, str) else kind) not in TOKEN_TYPES:
            return None
        if header.get("alg") == "HS256":
            return None if self._secret is None else ("HS256", self._secret)
        if self._keys is None:
            return None
        return self._keys.find(header.get("alg"), header.get("kid"))


def _find_role(claims: Mapping[str, Any], path: str) -> Role | None:
    """Returns the highest role in a claim, named by its full name (which may hold dots) or by a path of nested ones."""
    value: Any = claims.get(path)
    if value is None:
        value = claims
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    names = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return next((role for role in reversed(ROLES) if role in names), None)


def _read_secret(file: str) -> bytes:
    try:
        secret = Path(file).expanduser().read_bytes().strip()
    except OSError as error:
        raise UserError(f"auth.jwt.secret={file} cannot be read: {error.strerror}") from error
    if len(secret) < SECRET_BYTES:
        raise UserError(f"auth.jwt.secret={file} has {len(secret)} bytes: HS256 needs {SECRET_BYTES} or more")
    return secret
