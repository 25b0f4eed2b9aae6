"""Findings: problems of samples, and remarks about them."""

from dataclasses import dataclass

from brain_tumor.config import Split

QUARANTINED = "image quarantined"
ROW_IGNORED = "row ignored"
LEFT_OUT = "image left out"


@dataclass(frozen=True)
class Finding:
    """A problem of a sample, or a remark about it.

    Attributes:
        split: The split as provided.
        file: The image's file name, as in the row or the folder.
        row: Line or position in the annotation file (the message names that file), or None if it is about the
            image alone.
        kind: The kind of problem, one word.
        message: One sentence that names the file and the row.
        action: The action taken.
    """

    split: Split
    file: str
    row: int | None
    kind: str
    message: str
    action: str

    @property
    def bad(self) -> bool:
        """Whether the sample is bad; otherwise the finding is a remark."""
        return self.action in (QUARANTINED, ROW_IGNORED, LEFT_OUT)
