"""What senders over HTTP have in common."""

import os

from serve.gateway.senders.errors import DeliveryDelayed

PASSING = {401, 403, 408, 429}  # statuses of a client's error that time heals, or somebody who mends the token


def is_delay(status: int) -> bool:
    """Whether a later attempt may get another status than this error."""
    return status >= 500 or status in PASSING


def authorise(token_variable: str | None) -> dict[str, str]:
    """The header with the bearer token that an environment variable holds; none if no variable is named.

    Raises:
        DeliveryDelayed: The variable is empty.
    """
    if token_variable is None:
        return {}
    token = os.environ.get(token_variable, "").strip()
    if not token:
        raise DeliveryDelayed(f"the environment variable {token_variable} has no token")
    return {"Authorization": f"Bearer {token}"}
