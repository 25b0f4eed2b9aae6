import pytest

from brain_tumor.runtime.errors import InputError
from pipelines.compile import TARGETS, load_target


@pytest.mark.parametrize("name", sorted(file.stem for file in TARGETS.glob("*.yaml")))
def test_a_targets_image_takes_the_tag(name: str) -> None:
    target = load_target(name)
    assert target.image.format(tag="0123").endswith(":0123")
    assert isinstance(target.caching, bool)


def test_an_unknown_target_is_refused_and_told_what_exists() -> None:
    with pytest.raises(InputError, match=r"target lokal is not known; choose one of .*local"):
        load_target("lokal")
