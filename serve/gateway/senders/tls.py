"""TLS of our connections to others."""

import ssl
from pathlib import Path

from chestai.config.gateway import Destination, Priors
from chestai.errors import UserError


def make_client_tls(key: str, settings: Destination | Priors) -> ssl.SSLContext | None:
    """The TLS of a connection; None without.

    Args:
        key: Of the settings, for the error.

    Raises:
        UserError: The authority's file cannot be used.
    """
    if not settings.tls:
        return None
    authority = settings.tls_authority
    try:
        context = ssl.create_default_context(cafile=None if authority is None else str(Path(authority).expanduser()))
    except (OSError, ssl.SSLError) as error:
        raise UserError(f"{key}.tls_authority={authority} cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
