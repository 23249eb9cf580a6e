"""Sends a DICOM object to a DICOMweb server by STOW-RS (PS3.18 Section 10.5)."""

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset

from serve.gateway.senders.errors import DeliveryDelayed, DeliveryRefused
from serve.gateway.senders.http import authorise, is_delay


def send(instance: Dataset, url: str, token_variable: str | None, timeout_s: float) -> None:
    """Sends one object.

    Args:
        url: Of the service, such as `https://host/dicom-web`.
        token_variable: The environment variable with a bearer token; None to send none.

    Raises:
        DeliveryDelayed: No connection, no answer in time, status 401, 403, 408, 429 or 5xx, or the token is not there.
        DeliveryRefused: The server refuses the object.
    """
    client = DICOMwebClient(url, headers=authorise(token_variable), timeout=timeout_s)
    client.set_http_retry_params(retry=False)
    try:
        answer = client.store_instances([instance])
    except requests.HTTPError as error:
        status = 0 if error.response is None else error.response.status_code
        kind = DeliveryDelayed if is_delay(status) else DeliveryRefused
        raise kind(f"the server answers {status}") from error
    except requests.RequestException as error:
        raise DeliveryDelayed(f"the server does not answer ({type(error).__name__})") from error
    failed = answer.get("FailedSOPSequence") or []
    if failed:
        raise DeliveryRefused(f"the server refuses the object with reason 0x{failed[0].FailureReason:04X}")
