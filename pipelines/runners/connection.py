"""The connection to Kubeflow Pipelines: its address, the credentials, and the meaning of its errors.

The target sets the address and the namespace. Credentials are the first available ones of:

1. `KF_PIPELINES_TOKEN_COMMAND`, a command that prints a token, such as `kubectl create token default-editor
   -n NAMESPACE --audience=pipelines.kubeflow.org`. It is run again every few minutes, so a run may last
   longer than a token.
2. `KF_PIPELINES_SA_TOKEN_PATH`, a file that holds one, or the file that Kubeflow gives to a pod: read at each
   request.
3. `KF_PIPELINES_IAP_OAUTH2_CLIENT_ID` (with `..._APP_OAUTH2_CLIENT_ID` and `..._SECRET`), for Google's
   Identity-Aware Proxy.
4. The application default credentials, for an address of Google's (`*.googleusercontent.com`).
5. None: a forwarded port of a single-user Kubeflow needs no credentials.

`KF_PIPELINES_COOKIES` is sent in addition, for a login page in front of Kubeflow (`authservice_session=...`).
"""

import json
import logging
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.text import display_name
from pipelines.targets.target import Target

if TYPE_CHECKING:
    from kfp_server_api import ApiClient, ApiException, Configuration

TOKEN_COMMAND = "KF_PIPELINES_TOKEN_COMMAND"
TOKEN_FILE = "KF_PIPELINES_SA_TOKEN_PATH"
POD_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"
IAP_CLIENT, APP_CLIENT, APP_SECRET = (
    f"KF_PIPELINES_{name}"
    for name in ("IAP_OAUTH2_CLIENT_ID", "APP_OAUTH2_CLIENT_ID", "APP_OAUTH2_CLIENT_SECRET")
)
COOKIES = "KF_PIPELINES_COOKIES"
GOOGLE_HOST = re.compile(r"https?://[^/]+\.googleusercontent\.com/?$")
# Seconds that a token is used for; a service account's lives an hour.
TOKEN_AGE = 600.0
# Seconds to connect, and to wait for an answer.
TIMEOUT = (10.0, 60.0)
LOG_IN = (
    f"set {TOKEN_COMMAND} to a command that prints a token (kubectl create token default-editor -n NAMESPACE "
    f"--audience=pipelines.kubeflow.org), or {COOKIES} to the cookies of a browser that is logged in"
)


class UnknownRunError(InputError):
    """There is no such run where it was looked for."""


class UnreachableError(InputError):
    """The server does not respond, or fails; a later attempt may succeed."""


class RefreshedToken:
    """A token that is renewed when it is some minutes old."""

    def __init__(self, fetch: Callable[[], str]) -> None:
        self._fetch = fetch
        self._fetched = -TOKEN_AGE

    def refresh_api_key_hook(self, configuration: "Configuration") -> None:
        """Puts the token into a configuration; the client calls it before each request."""
        if time.monotonic() - self._fetched >= TOKEN_AGE:
            configuration.api_key["authorization"] = self._fetch()
            self._fetched = time.monotonic()


def open_client(target: Target) -> "ApiClient":
    """Creates a client of a target's Kubeflow Pipelines, without any request yet.

    Raises:
        InputError: The target names no address, or there is no token.
    """
    import kfp_server_api
    import urllib3

    if not target.host:
        raise InputError(
            "Say where Kubeflow Pipelines is, as HOST=http://127.0.0.1:8888 for a port that kubectl "
            "port-forward -n kubeflow svc/ml-pipeline 8888:8888 has forwarded, or in KF_PIPELINES_ENDPOINT."
        )
    if not re.match(r"https?://[^/]", target.host):
        raise InputError(
            f"The host {display_name(target.host)} is not an address; give it as http://... or https://..."
        )
    configuration = kfp_server_api.Configuration(host=target.host.rstrip("/"))
    # It logs each attempt.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    # A redirect to a login page is the answer; it must not be followed.
    configuration.retries = urllib3.Retry(2, redirect=0, raise_on_redirect=False, backoff_factor=0.2)
    hook = _credentials(target.host)
    if hook:
        configuration.api_key["authorization"] = ""
        configuration.api_key_prefix["authorization"] = "Bearer"
        configuration.refresh_api_key_hook = hook
    return kfp_server_api.ApiClient(configuration, cookie=os.environ.get(COOKIES))


def _credentials(host: str) -> "Callable[[Configuration], None] | None":
    """The function that adds a token to a configuration; None if none is needed. See the module."""
    if command := os.environ.get(TOKEN_COMMAND):
        return RefreshedToken(lambda: _run(command)).refresh_api_key_hook
    if (path := os.environ.get(TOKEN_FILE)) or Path(POD_TOKEN).is_file():
        return lambda configuration: configuration.api_key.update(authorization=_read(path or POD_TOKEN))
    if client := os.environ.get(IAP_CLIENT):
        from kfp.client import auth

        others = os.environ.get(APP_CLIENT), os.environ.get(APP_SECRET)
        return RefreshedToken(lambda: str(auth.get_auth_token(client, *others)[0])).refresh_api_key_hook
    if GOOGLE_HOST.match(host):
        from kfp.client import auth

        return RefreshedToken(lambda: str(auth.get_gcp_access_token())).refresh_api_key_hook
    return None


def _run(command: str) -> str:
    try:
        done = subprocess.run(
            shlex.split(command), capture_output=True, text=True, timeout=TIMEOUT[1], check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise InputError(
            f"The command in {TOKEN_COMMAND} cannot be run ({type(error).__name__}); correct it."
        ) from None
    token = done.stdout.strip()
    if done.returncode or not token:
        said = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise InputError(f"The command in {TOKEN_COMMAND} gave no token ({display_name(said)}); correct it.")
    return token


def _read(path: str) -> str:
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if not token:
        raise InputError(f"{path}, which {TOKEN_FILE} names, holds no token; write one there.")
    return token


@contextmanager
def os_errors_explained(target: Target, missing: str = "") -> Iterator[None]:
    """Turns the server's errors into one sentence.

    Args:
        target: The target.
        missing: The run that does not exist if the status is 404; without it, Kubeflow Pipelines does not.

    Raises:
        UnreachableError: The server does not respond, or fails.
        UnknownRunError: There is no such run.
        InputError: The server rejects the request.
    """
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        # "from None": the cause shows the whole response, with its headers.
        raise _explain(error, target, missing) from None
    except HTTPError as error:
        raise UnreachableError(
            f"No Kubeflow Pipelines answers at {target.host} ({type(error).__name__}); check the address, or "
            "forward its port: kubectl port-forward -n kubeflow svc/ml-pipeline 8888:8888."
        ) from None


def _explain(error: "ApiException", target: Target, missing: str) -> InputError:
    status, said = int(error.status or 0), _said(error.body)
    if status == 401 or 300 <= status < 400:
        return InputError(f"Kubeflow Pipelines at {target.host} does not know who asks ({status}); {LOG_IN}.")
    if status == 403:
        where = f"namespace {target.namespace}" if target.namespace else "no namespace"
        return InputError(
            f"Kubeflow Pipelines refuses this with {where} (403{said}); name a namespace whose user you are, "
            f"as KF_PIPELINES_NAMESPACE, or {LOG_IN}."
        )
    if status == 404:
        if missing:
            return UnknownRunError(f"There is no {missing}.")
        return InputError(
            f"There is no Kubeflow Pipelines at {target.host}; check the address, which is that of its API."
        )
    if status == 0:
        return UnreachableError(f"The certificate of {target.host} is not taken; check the address.")
    if status >= 500 or status == 429:
        return UnreachableError(
            f"Kubeflow Pipelines at {target.host} failed ({status}{said}); look at kubectl logs -n kubeflow "
            "deploy/ml-pipeline, and try again."
        )
    return InputError(f"Kubeflow Pipelines at {target.host} does not take this ({status}{said}); correct it.")


def _said(body: Any) -> str:
    """The server's message, as a part of a sentence."""
    try:
        message = str(json.loads(body)["message"]).splitlines()[0]
    except (ValueError, TypeError, KeyError, IndexError):  # a proxy's page, or nothing
        return ""
    return f": {display_name(message)}"
