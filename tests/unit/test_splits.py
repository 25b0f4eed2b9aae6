import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brain_tumor.config import SPLITS
from brain_tumor.config.dataset import SplitFractions
from brain_tumor.ingest.splits import split_by_patient
from brain_tumor.runtime.errors import InputError

USUAL = SplitFractions(train=0.7, valid=0.2, test=0.1)


def make_images(sizes: list[int], labels: int = 3, seed: int = 0) -> tuple[pd.Series, np.ndarray]:
    """Each image's patient and labels; label frequencies differ between patients."""
    rng = np.random.default_rng(seed)
    patients = pd.Series(np.repeat([f"patient {index}" for index in range(len(sizes))], sizes), dtype="str")
    rates = rng.beta(0.5, 0.5, (len(sizes), labels)) * np.linspace(1, 0.1, labels)
    return patients, rng.random((len(patients), labels)) < np.repeat(rates, sizes, axis=0)


def assert_lawful(patients: pd.Series, splits: np.ndarray, fractions: SplitFractions) -> None:
    """Checks that no patient is in two splits, all images are kept, and fractions are as documented."""
    assert len(splits) == len(patients) and set(splits) <= set(SPLITS)
    assert (pd.Series(splits).groupby(patients.to_numpy()).nunique() == 1).all()
    assert set(splits) == set(SPLITS)
    largest = patients.value_counts().max()
    for name, share in fractions.model_dump().items():
        surplus = (splits == name).sum() - share * len(patients)
        assert -2 * largest <= surplus < largest


fraction_sets = st.sampled_from(
    [
        USUAL,
        SplitFractions(train=0.98, valid=0.01, test=0.01),
        SplitFractions(train=1 / 3, valid=1 / 3, test=1 / 3),
    ]
)
sizes = st.lists(st.integers(1, 4) | st.integers(1, 400), min_size=3, max_size=40)


@settings(deadline=None)
@given(sizes, fraction_sets, st.integers(1, 5), st.integers(0, 99))
def test_any_sizes(sizes: list[int], fractions: SplitFractions, labels: int, seed: int) -> None:
    patients, shown = make_images(sizes, labels, seed)
    assert_lawful(patients, split_by_patient(patients, shown, fractions, seed), fractions)


@settings(deadline=None)
@given(sizes, st.integers(0, 99))
def test_the_order_of_the_images_does_not_matter(sizes: list[int], seed: int) -> None:
    patients, shown = make_images(sizes, seed=seed)
    order = np.random.default_rng(seed).permutation(len(patients))

    splits = split_by_patient(patients, shown, USUAL, seed)
    shuffled = split_by_patient(patients.iloc[order], shown[order], USUAL, seed)

    np.testing.assert_array_equal(splits[order], shuffled)


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), sizes)
def test_any_fractions(values: list[float], sizes: list[int]) -> None:
    shares = zip(SPLITS, (value / sum(values) for value in values), strict=True)
    fractions = SplitFractions(**dict(shares))
    patients, shown = make_images(sizes)
    assert_lawful(patients, split_by_patient(patients, shown, fractions, 0), fractions)


@pytest.mark.parametrize(
    "sizes",
    [[1, 1, 1], [1000, 1, 1], [1000, 900, 800], [1] * 10_000, [5000, *[1] * 5000], [155] * 12],
    ids=["three images", "one giant", "three giants", "one image each", "half in one patient", "volumes"],
)
def test_very_unequal_patients(sizes: list[int]) -> None:
    patients, shown = make_images(sizes)
    assert_lawful(patients, split_by_patient(patients, shown, USUAL, 0), USUAL)


def test_many_small_patients_meet_the_fractions_to_an_image() -> None:
    patients, shown = make_images([1] * 10_000)
    splits = split_by_patient(patients, shown, USUAL, 0)
    assert [(splits == name).sum() for name in SPLITS] == [7000, 2000, 1000]


def test_another_seed_gives_other_splits() -> None:
    patients, shown = make_images([10] * 40)
    first, second = (split_by_patient(patients, shown, USUAL, seed) for seed in (0, 1))
    assert (first != second).any()


def test_labels_are_as_frequent_in_each_split() -> None:
    """Forty volumes with very different labels: at random, shares in test would differ by 0.1 and more."""
    patients, shown = make_images([100] * 40)
    splits = split_by_patient(patients, shown, USUAL, 0)
    share = shown.mean(axis=0)
    for name in SPLITS:
        np.testing.assert_allclose(shown[splits == name].mean(axis=0), share, atol=0.05)
    rng = np.random.default_rng(0)
    names = patients.unique()
    drawn = [shown[patients.isin(rng.choice(names, 4, replace=False))].mean(axis=0) for _ in range(100)]
    assert np.abs(np.array(drawn) - share).max(axis=1).mean() > 0.1


@pytest.mark.parametrize(
    "labels",
    [np.zeros((60, 2), bool), np.ones((60, 2), bool), np.zeros((60, 0), bool)],
    ids=["none", "all", "no label"],
)
def test_uninformative_labels(labels: np.ndarray) -> None:
    patients, _ = make_images([6] * 10)
    assert_lawful(patients, split_by_patient(patients, labels, USUAL, 0), USUAL)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=2), fraction_sets)
def test_too_few_patients_are_one_sentence(sizes: list[int], fractions: SplitFractions) -> None:
    patients, shown = make_images(sizes)
    with pytest.raises(InputError, match=f"needs a patient for each of train.*but there are {len(sizes)}"):
        split_by_patient(patients, shown, fractions, 0)
