from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.image import ROOT, SOURCES, image_tag


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project with files that an image is built from, and others."""
    for name in (
        "src/brain_tumor/a.py",
        "src/brain_tumor/config/yaml/config.yaml",
        "src/brain_tumor/__pycache__/a.cpython-311.pyc",
        "src/brain_tumor.egg-info/PKG-INFO",
        "requirements/data.txt",
        "requirements/cpu.txt",
        "requirements/gpu.txt",
        "requirements/dev.txt",
        "images/Dockerfile",
        "images/install-packages",
        "pyproject.toml",
        "README.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"first line of {name}\n")
    return tmp_path


def append(name: str) -> Callable[[Path], object]:
    def change(project: Path) -> None:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        with open(project / name, "a") as file:
            file.write("another line\n")

    return change


def rename(project: Path) -> None:
    (project / "src/brain_tumor/a.py").rename(project / "src/brain_tumor/b.py")


def delete(project: Path) -> None:
    (project / "src/brain_tumor/a.py").unlink()


@pytest.mark.parametrize(
    "change",
    [
        append("src/brain_tumor/a.py"),
        append("src/brain_tumor/config/yaml/config.yaml"),
        append("src/brain_tumor/new.py"),
        append("requirements/data.txt"),
        append("requirements/cpu.txt"),
        append("requirements/gpu.txt"),
        append("images/Dockerfile"),
        append("images/install-packages"),
        rename,
        delete,
    ],
)
def test_a_changed_image_has_another_tag(project: Path, change: Callable[[Path], object]) -> None:
    before = image_tag(project)
    change(project)
    assert image_tag(project) != before


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "pyproject.toml",
        "requirements/dev.txt",
        "src/brain_tumor/__pycache__/a.cpython-311.pyc",
        "src/brain_tumor/data/__pycache__/b.cpython-312.pyc",
        "src/brain_tumor.egg-info/PKG-INFO",
    ],
)
def test_files_outside_the_image_do_not_affect_the_tag(project: Path, name: str) -> None:
    before = image_tag(project)
    append(name)(project)
    assert image_tag(project) == before


def test_a_tag_does_not_depend_on_the_projects_path(project: Path) -> None:
    before = image_tag(project)
    assert len(before) == 16
    assert image_tag(project.rename(project.with_name("elsewhere"))) == before


def test_this_project_has_the_files_of_the_tag() -> None:
    assert all((ROOT / source).exists() for source in SOURCES)
