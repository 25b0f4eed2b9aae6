"""Google Cloud's Secret Manager, for platforms without secrets in environment variables."""

import base64
import binascii

import google.auth
import requests
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession

from brain_tumor.runtime.errors import InputError, UnavailableError

SERVICE = "https://secretmanager.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TIMEOUT = (10, 60)  # seconds to connect, and to wait for the response
WHAT_TO_DO = {
    403: "give the step's service account the role Secret Manager Secret Accessor",
    404: "create it with gcloud secrets create",
}


def read_secret(name: str, service: str = SERVICE) -> str:
    """Reads a secret with the application default credentials.

    Reference: https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access

    Args:
        name: Its version, `projects/PROJECT/secrets/NAME/versions/latest`.
        service: The service's address.

    Raises:
        UnavailableError: The service does not respond, or fails.
        InputError: There are no credentials, they lack the permission, or the secret does not exist or is not
            text.
    """
    try:
        credentials, _ = google.auth.default(scopes=[SCOPE])
        answer = AuthorizedSession(credentials).get(f"{service}/v1/{name}:access", timeout=TIMEOUT)
    except GoogleAuthError:
        raise InputError(
            f"Secret Manager's {name} needs Google credentials; sign in with gcloud auth "
            "application-default login, or run with a service account."
        ) from None
    except requests.RequestException as error:
        raise UnavailableError(
            f"Secret Manager did not answer for {name} ({type(error).__name__}); try again later."
        ) from None
    if answer.status_code != requests.codes.ok:
        status = f"Secret Manager answered {answer.status_code} for {name}"
        if advice := WHAT_TO_DO.get(answer.status_code):
            raise InputError(f"{status}; {advice}.")
        raise UnavailableError(f"{status}; try again later.")
    try:
        return base64.b64decode(answer.json()["payload"]["data"], validate=True).decode()
    except (KeyError, TypeError, ValueError, binascii.Error):
        # Not chained: the error contains the secret.
        raise InputError(f"Secret Manager's {name} is not text; store only the key in it.") from None
