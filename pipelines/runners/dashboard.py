"""Copies of artifacts through Kubeflow's dashboard, which reads its own object store without keys of ours.

Its address `/artifacts/get` answers with an object, or with all objects below a prefix as a tar.gz file (in
kubeflow/pipelines 2.17.0: frontend/server/handlers/artifacts.ts).
"""

import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.text import display_name
from pipelines.runners.connection import TIMEOUT, open_client
from pipelines.targets.target import Target

ARTIFACTS = "/artifacts/get"
NOTHING = "No objects found"
ADDRESS = re.compile(r"minio://([^/]+)/(.+?)/*")


class Dashboard:
    """See the module.

    Args:
        target: The target, at whose dashboard or host it is.
    """

    def __init__(self, target: Target) -> None:
        self.host = (target.dashboard or target.host).rstrip("/")
        self._client = open_client(target.model_copy(update={"host": self.host}))
        self._namespace = {"namespace": target.namespace} if target.namespace else {}

    def answers(self) -> bool:
        """Whether there is a dashboard."""
        status, answer = self._get({})
        if not isinstance(answer, str):
            answer.close()
        # It asks for the parameters; Kubeflow's API by itself does not know the address.
        return status in (400, 500)

    def copy_file(self, address: str, copy: Path) -> bool:
        """Copies an object to a file; False if there is none.

        Raises:
            InputError: The dashboard does not give it.
        """
        answer = self._open(address)
        if answer is None:
            return False
        copy.parent.mkdir(parents=True, exist_ok=True)
        with answer, open(copy, "wb") as file:
            shutil.copyfileobj(answer, file)
        return True

    def copy_folder(self, address: str, copy: Path) -> bool:
        """Copies all objects below an address to a folder; False if there are none.

        Raises:
            InputError: The dashboard does not give them.
        """
        answer = self._open(address)
        if answer is None:
            return False
        copy.mkdir(parents=True, exist_ok=True)
        with answer:
            try:
                with tarfile.open(fileobj=answer, mode="r|gz") as archive:
                    archive.extractall(copy, filter="data")
            except (tarfile.TarError, EOFError) as error:  # it broke off
                why = display_name(str(error))
                raise InputError(f"the dashboard at {self.host} gave a part of {address} ({why}).") from None
        return True

    def _open(self, address: str) -> Any:
        """The dashboard's answer for an address, to be read; None if there is nothing."""
        found = ADDRESS.fullmatch(address)
        if not found:
            raise InputError(f"{address} is not in the dashboard's own store.")
        status, answer = self._get({"source": "minio", "bucket": found[1], "key": found[2]})
        if status == 404 and NOTHING in answer:
            return None
        if isinstance(answer, str):
            raise InputError(f"the dashboard at {self.host} does not give {address} ({answer}).")
        return answer

    def _get(self, query: dict[str, str]) -> tuple[int, Any]:
        """The status, 0 without an answer, and the answer, or the reason why there is none."""
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        try:
            answer = self._client.call_api(
                ARTIFACTS,
                "GET",
                query_params=list({**query, **self._namespace}.items()),
                auth_settings=["Bearer"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=TIMEOUT,
            )
        except ApiException as error:
            lines = str(error.body or error.reason or "").splitlines()
            return int(error.status or 0), display_name(" ".join([str(error.status), *lines[:1]]))
        except HTTPError as error:
            return 0, type(error).__name__
        return int(answer.status), answer
