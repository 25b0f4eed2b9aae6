"""The pipeline, as a numbered list of steps."""

import inspect
from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Model

from brain_tumor.artifacts.evaluation import ALL
from brain_tumor.config import StepConfigs
from brain_tumor.steps import title
from components.build_tfrecords import build_tfrecords
from components.evaluate import evaluate
from components.gate import gate
from components.ingest import ingest
from components.label_curves import label_curves
from components.train import train
from components.visualize import visualize
from pipelines.targets.target import Kind
from pipelines.targets.tasks import ConfigureTask

NAME = "brain-tumor"
# A parameter with the run's overrides, for display. No step reads it, so it is not part of any cache key.
ABOUT = "about"


def define_steps(
    configs: StepConfigs, config: dict[str, Any], configure_task: ConfigureTask
) -> dict[str, Any]:
    """Adds the steps, from images to an evaluated and registered model.

    1. ingest: read the images and boxes, quarantine bad ones, write a report.
    2. build TFRecords: the input of training, and its statistics.
    3. train: one task per phase, which continues another phase's model or starts with a new one.
    4. evaluate: the final model and the baselines.
    5. curves: a ROC curve and confusion matrix per label, and for all labels pooled.
    6. visualize: pictures on one page.
    7. gate: register the final model, as the champion or as a challenger.
    """

    def step(task: dsl.PipelineTask, kind: Kind, of: str = "") -> dsl.PipelineTask:
        configure_task(task.set_display_name(title(kind, of)), kind)
        return task

    # Steps 1 and 2: data.
    dataset = step(ingest(config=config["dataset"]), "ingest").outputs["dataset"]
    built = step(build_tfrecords(config=config["records"], dataset=dataset), "build_tfrecords")
    records = built.outputs["records"]

    # Step 3: training phases.
    models: dict[str, Any] = {}
    for name, training in configs.trainings.items():
        start = {"start": models[training.phase.start]} if training.phase.start else {}
        trained = step(train(config=config[name], records=records, **start), "train", name)
        models[name] = trained.outputs["model"]

    # Steps 4 to 7: evaluation.
    baselines = {f"baseline_{number}": models[name] for number, name in enumerate(configs.baselines, start=1)}
    final = models[configs.final]
    evaluated = step(
        evaluate(config=config["evaluate"], records=records, final=final, **baselines), "evaluate"
    )
    evaluation, predictions = evaluated.outputs["evaluation"], evaluated.outputs["predictions"]
    for label in (*configs.dataset.labels, ALL):
        step(label_curves(label=label, evaluation=evaluation), "label_curves", label)
    inputs = {"dataset": dataset, "predictions": predictions, "evaluation": evaluation}
    visualized = step(visualize(config=config["visualize"], **inputs), "visualize")
    # Never cached: the champion changes between runs, and registration is a side effect.
    gated = gate(config=config["gate"], records=records, final=final, predictions=predictions)
    step(gated, "gate").set_caching_options(False)
    return {"records": records, **models, **inputs, "gallery": visualized.outputs["gallery"]}


def build_pipeline(configs: StepConfigs, configure_task: ConfigureTask) -> dsl.base_component.BaseComponent:
    """Builds the pipeline.

    Args:
        configs: The steps' configs; the pipeline has one training per phase, and curves per label.
        configure_task: Adds the target's settings to a task.

    Returns:
        The pipeline. Its parameters are a description of the run, and the steps' configs as JSON.
    """
    parameters = [ABOUT, *configs.parameters()]
    types = {"dataset": Dataset, "records": Dataset, **dict.fromkeys(configs.trainings, Model)}
    types |= {"predictions": Dataset, "evaluation": Artifact, "gallery": HTML}
    outputs: Any = NamedTuple("Outputs", list(types.items()))  # type: ignore[misc]

    def brain_tumor(*values: Any) -> Any:
        config = dict(zip(parameters, values, strict=True))
        return outputs(**define_steps(configs, config, configure_task))

    # KFP reads the parameters and outputs, which depend on the phases, from the signature.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = [inspect.Parameter(name, kind, annotation=str) for name in parameters]
    brain_tumor.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        signature, return_annotation=outputs
    )
    description = "Trains and evaluates a brain-tumor detector on MRI slices."
    return dsl.pipeline(brain_tumor, name=NAME, description=description)
