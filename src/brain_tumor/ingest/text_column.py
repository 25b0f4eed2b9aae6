"""A column of texts that grows without an object a text."""

from array import array

import pandas as pd
import pyarrow as pa


class TextColumn:
    """A growing column of texts as Arrow keeps it: their bytes in a row, and where each ends."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])

    def append(self, text: str) -> None:
        """Adds a text; what cannot be written as UTF-8 is escaped."""
        self._bytes += text.encode(errors="backslashreplace")
        self._ends.append(len(self._bytes))

    def finish(self) -> pd.Series:
        """The column, without a copy."""
        buffers = [None, pa.py_buffer(self._ends), pa.py_buffer(self._bytes)]
        texts = pa.Array.from_buffers(pa.large_string(), len(self._ends) - 1, buffers)
        return pd.Series(texts, dtype="str")
