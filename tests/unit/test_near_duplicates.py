import io

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from brain_tumor.ingest import near_duplicates
from brain_tumor.ingest.near_duplicates import find_near_duplicates

hashes = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 2**6), max_size=20)


def array(values: list[int]) -> np.ndarray:
    return np.array(values, np.uint64)


@given(hashes, hashes, st.integers(0, 64))
def test_the_count_equals_the_definition(first: list[int], second: list[int], distance: int) -> None:
    expected = sum(any((a ^ b).bit_count() <= distance for a in first) for b in second)
    assert find_near_duplicates(array(first), array(second), distance).sum() == expected


def test_it_counts_images_of_the_second_set() -> None:
    first, second = array([0b0000]), array([0b0001, 0b0001, 0b0111])
    assert find_near_duplicates(first, second, 1).sum() == 2
    assert find_near_duplicates(second, first, 1).sum() == 1


def test_the_result_does_not_depend_on_the_number_of_pairs_compared_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 2**64, 300, dtype=np.uint64) for _ in range(2))
    whole = find_near_duplicates(first, second, 20).sum()
    monkeypatch.setattr(near_duplicates, "PAIRS_AT_ONCE", 700)
    assert find_near_duplicates(first, second, 20).sum() == whole > 0


def test_a_resaved_slice_is_a_near_duplicate_and_another_one_is_not() -> None:
    """The same slice, compressed and brightened, is found."""
    rng = np.random.default_rng(0)
    first, other = (
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).resize(
            (140, 130), Image.Resampling.BICUBIC
        )
        for _ in range(2)
    )
    buffer = io.BytesIO()
    ImageEnhance.Brightness(first).enhance(0.9).save(buffer, "JPEG", quality=40)
    again = Image.open(buffer)
    known, again_hash, other_hash = (
        array([int(str(imagehash.phash(image)), 16)]) for image in (first, again, other)
    )
    assert find_near_duplicates(known, again_hash, 4).sum() == 1
    assert find_near_duplicates(known, other_hash, 4).sum() == 0
