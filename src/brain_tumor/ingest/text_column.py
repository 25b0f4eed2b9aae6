"""A growing column of strings, without one Python object per string."""

from array import array

import pandas as pd
import pyarrow as pa


class TextColumn:
    """A growing column of strings in Arrow's layout: concatenated bytes, and end offsets."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])

    def append(self, text: str) -> None:
        """Adds a string; what cannot be encoded as UTF-8 is escaped."""
        self._bytes += text.encode(errors="backslashreplace")
        self._ends.append(len(self._bytes))

    def finish(self) -> pd.Series:
        """The column, without a copy."""
        buffers = [None, pa.py_buffer(self._ends), pa.py_buffer(self._bytes)]
        texts = pa.Array.from_buffers(pa.large_string(), len(self._ends) - 1, buffers)
        return pd.Series(texts, dtype="str")
