"""Parquet tables, written and read in groups of rows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brain_tumor.runtime.errors import DamagedError, os_errors_explained

# Imported lazily: processes that write records import this module, and need neither Arrow nor pandas.
if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

COORDINATES = ("xmin", "ymin", "xmax", "ymax")
"""A box's columns, in the order used wherever a box is four numbers; xmax and ymax are exclusive."""

ROW_GROUP = 8192
ROWS_AT_ONCE = 1024

Rows = Iterator[dict[str, Any]]


def write_table(
    frame: "pd.DataFrame",
    complete: "Callable[[pd.DataFrame], pd.DataFrame]",
    path: Path,
    schema: "pa.Schema",
) -> None:
    """Writes a table by row groups; `complete` adds the missing columns to each group of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def convert(start: int) -> pa.Table:
        part = complete(frame.iloc[start : start + ROW_GROUP])[schema.names]
        texts = {name: "str" for name in part if part[name].dtype == "category"}
        return pa.Table.from_pandas(part.astype(texts), schema, preserve_index=False)

    first = convert(0)
    with pq.ParquetWriter(path, first.schema) as writer:  # with pandas' metadata
        writer.write_table(first)
        for start in range(ROW_GROUP, len(frame), ROW_GROUP):
            writer.write_table(convert(start))


def read_table(path: Path, filters: list[tuple[str, str, Any]] | None = None) -> "pd.DataFrame":
    """Reads a table, or its rows that pass filters (as in `pandas.read_parquet`).

    Raises:
        DamagedError: It is missing, truncated, or not a table.
    """
    import pandas as pd

    with _damage_explained(path):
        return pd.read_parquet(path, filters=filters)


@contextmanager
def _damage_explained(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        with os_errors_explained(path):
            yield
    # Arrow raises OSError too, for a page that cannot be decoded; KeyError: a missing column.
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DamagedError(
            f"{path} is missing or damaged, or another version wrote it; run the step that makes it again."
        ) from error


def read_rows(path: Path, columns: list[str]) -> Rows:
    """The rows of a table, in order, as dicts.

    Raises:
        DamagedError: It is missing, truncated, not a table, or lacks a column.
    """
    import pyarrow.parquet as pq

    with _damage_explained(path), pq.ParquetFile(path) as table:
        if missing := set(columns).difference(table.schema_arrow.names):
            raise KeyError(*missing)
        for batch in table.iter_batches(ROWS_AT_ONCE, columns=columns):
            yield from batch.to_pylist()
