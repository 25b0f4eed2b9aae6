"""Prints the Kubernetes secret of the Roboflow key for `kubectl apply`, or nothing if there is no key.

The key is read as in the library: from the environment variable ROBOFLOW_API_KEY, or from a file .env in the
working folder or one above it.
"""

import json
import os
import sys

from dotenv import dotenv_values, find_dotenv

VARIABLE = "ROBOFLOW_API_KEY"
# pipelines/targets/kind.yaml names these too.
NAME, FIELD = "brain-tumor-roboflow", "api_key"


def main() -> None:
    """Prints the secret; exits with code 2 if the file .env cannot be read."""
    try:
        key = os.environ.get(VARIABLE) or dotenv_values(find_dotenv(usecwd=True)).get(VARIABLE) or ""
    except (OSError, UnicodeDecodeError):
        print(f"The file .env cannot be read; write it as text with a line {VARIABLE}=...", file=sys.stderr)
        raise SystemExit(2) from None
    if key.strip():
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": NAME, "namespace": "kubeflow"},
            "stringData": {FIELD: key.strip()},
        }
        print(json.dumps(secret))


if __name__ == "__main__":
    main()
