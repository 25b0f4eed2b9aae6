"""What the user should know about a sample: one kind of remark for reading, judging and reporting."""

from dataclasses import dataclass

from brain_tumor.config import Split

QUARANTINED = "image quarantined"
ROW_IGNORED = "row ignored"
LEFT_OUT = "image left out"


@dataclass(frozen=True)
class Finding:
    """Something about a sample that the user should know.

    Attributes:
        split: The split as provided.
        file: The image's file name, as the row or the folder has it.
        row: Line or position in the annotation file (the message names that file), or None where it is about
            the image alone.
        kind: What it is, one word for all findings alike.
        message: One sentence that names the file and the row.
        action: What was done about it.
    """

    split: Split
    file: str
    row: int | None
    kind: str
    message: str
    action: str

    @property
    def bad(self) -> bool:
        """Whether the sample is bad, rather than worth a remark."""
        return self.action in (QUARANTINED, ROW_IGNORED, LEFT_OUT)
