"""The cookies of the endpoint: of a session, and of a sign-in that waits for the identity provider."""

from dataclasses import dataclass
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from chestai.config.serving import CALLBACK_PATH


@dataclass(frozen=True)
class Cookie:
    """A cookie that scripts cannot read. max_age_s: None for one that the browser forgets when it is closed."""

    name: str
    path: str
    same_site: Literal["strict", "lax"]
    max_age_s: int | None = None

    def read(self, request: Request) -> str | None:
        """Returns the value in a request."""
        return request.cookies.get(self._full_name(request))

    def write(self, request: Request, response: Response, value: str) -> None:
        """Sets the cookie in the response to a request."""
        self._set(request, response, value, self.max_age_s)

    def clear(self, request: Request, response: Response) -> None:
        """Deletes the cookie in the response to a request."""
        self._set(request, response, "", 0)

    def _set(self, request: Request, response: Response, value: str, max_age_s: int | None) -> None:
        response.set_cookie(
            self._full_name(request),
            value,
            max_age=max_age_s,
            path=self.path,
            secure=_is_https(request),
            httponly=True,
            samesite=self.same_site,
        )

    def _full_name(self, request: Request) -> str:
        """Returns the name with the prefix by which a browser takes the cookie over https alone, and no subdomain's."""
        prefix = "__Host-" if self.path == "/" else "__Secure-"
        return f"{prefix}{self.name}" if _is_https(request) else self.name


SESSION = Cookie("chestai", "/", "strict")
# Lax: the provider sends the browser back from its own site, and with Strict the callback would come without it.
SIGN_IN = Cookie("chestai-oidc", CALLBACK_PATH, "lax", max_age_s=600)


def _is_https(request: Request) -> bool:
    return request.url.scheme == "https"
