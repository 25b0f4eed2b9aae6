import json
from pathlib import Path

import pytest

from brain_tumor.stores.files import write_file, write_json


def test_a_file_is_written_atomically(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.md"
    write_file(path, "ä\n")
    write_file(path, "ö\n")
    assert path.read_text(encoding="utf-8") == "ö\n"
    assert list(path.parent.iterdir()) == [path]


def test_json_keeps_its_order_and_refuses_nan(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    write_json(path, {"b": 1, "a": None})
    assert path.read_text() == '{\n  "b": 1,\n  "a": null\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": None, "b": 1}
