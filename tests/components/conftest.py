"""Shared fixtures of the components' tests: configs, a local run of all components, errors for bad input."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from kfp import dsl, local
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Markdown, Metrics, Model
from kfp.local.config import LocalExecutionConfig

from brain_tumor.configure import configure
from components.build_tfrecords import build_tfrecords
from components.evaluate import evaluate as judge
from components.ingest import ingest
from components.label_curves import label_curves
from components.train import train
from components.visualize import visualize as draw


class Outputs(NamedTuple):
    """All outputs of all components."""

    dataset: Dataset
    data_report: HTML
    records: Dataset
    start: Model
    final: Model
    predictions: Dataset
    evaluation: Artifact
    metrics: Metrics
    report: Markdown
    curves: ClassificationMetrics
    gallery: HTML


@dsl.pipeline(name="components")
def every_component(
    dataset: str, records: str, phase1_box: str, phase2_classification: str, evaluate: str, visualize: str
) -> Outputs:
    """Runs each component once, train with and without a start model; the latter is also the baseline."""
    ingested = ingest(config=dataset)
    data = build_tfrecords(config=records, dataset=ingested.outputs["dataset"]).outputs["records"]
    start = train(config=phase1_box, records=data).outputs["model"]
    final = train(config=phase2_classification, records=data, start=start).outputs["model"]
    evaluated = judge(config=evaluate, records=data, final=final, baseline_1=start)
    evaluation, predictions = evaluated.outputs["evaluation"], evaluated.outputs["predictions"]
    curves = label_curves(label="label1", evaluation=evaluation)
    drawn = draw(
        config=visualize,
        dataset=ingested.outputs["dataset"],
        predictions=predictions,
        evaluation=evaluation,
    )
    return Outputs(
        dataset=ingested.outputs["dataset"],
        data_report=ingested.outputs["data_report"],
        records=data,
        start=start,
        final=final,
        predictions=predictions,
        evaluation=evaluation,
        metrics=evaluated.outputs["metrics"],
        report=evaluated.outputs["report"],
        curves=curves.outputs["curves"],
        gallery=drawn.outputs["gallery"],
    )


@pytest.fixture(scope="session")
def configs(tiny_overrides: list[str]) -> dict[str, str]:
    """The steps' configs for the data of `tiny_dataset`."""
    return configure(tiny_overrides).parameters()


@pytest.fixture(scope="session")
def local_runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Initializes `kfp.local`, so that called components and pipelines run with one process per step."""
    root = tmp_path_factory.mktemp("local")
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
    yield
    LocalExecutionConfig.instance = None


@pytest.fixture(scope="session")
def local_run(local_runner: None, configs: dict[str, str]) -> dict[str, Artifact]:
    """The outputs of `every_component` after a local run. Do not modify."""
    parameters = {name: configs[name] for name in every_component.component_spec.inputs}
    outputs: dict[str, Artifact] = every_component(**parameters).outputs
    return outputs


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Calls a component's function with bad input, and returns the error message of its exit code 2."""

    def call(component: Any, **arguments: Any) -> str:
        with pytest.raises(SystemExit) as caught:
            component.python_func(**arguments)
        assert caught.value.code == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
        return said.err

    return call
