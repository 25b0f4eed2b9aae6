"""Pairs annotation files with images by their names."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from brain_tumor.ingest.split_reader import SplitReader
from brain_tumor.runtime.text import normalize


def match_stems(reader: SplitReader, files: Iterable[str], source: str) -> Iterator[tuple[str, str]]:
    """Pairs annotation files with the images of the same name except the suffix.

    A file without an image, and two images that share a file, are findings.

    Args:
        reader: The split, its images listed.
        files: The annotation files' names.
        source: Their folder relative to the export's folder.

    Yields:
        Image and annotation file, in the files' order.
    """
    images: dict[str, str] = {}
    for image in sorted(reader.images):
        other = images.setdefault(normalize(Path(image).stem), image)
        if other != image:
            problem = (
                "have the same name except the suffix, so an annotation file belongs to both; rename one"
            )
            reader.report(other, source, None, f"and {image} {problem}", "ambiguous_name", lost=0)
            reader.report(image, source, None, f"and {other} {problem}", "ambiguous_name", lost=0)
    for file in files:
        found = images.get(normalize(Path(file).stem))
        if found is None:
            problem = "has no image of the same name; add it or delete this file"
            reader.report(file, source, None, problem, "missing_image")
        else:
            yield found, file
