"""The pipeline as a story."""

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
from pipelines.targets.place import Place
from pipelines.targets.target import Kind

NAME = "brain-tumor"
# What a run changes, for people to read. No step reads it, so that it costs no cache.
ABOUT = "about"


def tell_story(configs: StepConfigs, config: dict[str, Any], place: Place) -> dict[str, Any]:
    """From images to a judged model.

    1. ingest: read the images and boxes, set bad ones aside, report.
    2. build TFRecords: what training reads, and its statistics.
    3. train: the phases, each from the model of the one that it starts from, or from a new one.
    4. evaluate: the final model beside the others that no phase goes on from.
    5. curves: one ROC curve and confusion matrix a label, and one of all labels in one pot.
    6. visualize: the pictures on one page.
    7. gate: the final model in the registry, as the champion or as a challenger.
    """

    def step(task: dsl.PipelineTask, kind: Kind, of: str = "") -> dsl.PipelineTask:
        place(task.set_display_name(title(kind, of)), kind)
        return task

    # 1. to 2. Data.
    dataset = step(ingest(config=config["dataset"]), "ingest").outputs["dataset"]
    built = step(build_tfrecords(config=config["records"], dataset=dataset), "build_tfrecords")
    records = built.outputs["records"]

    # 3. The phases of the configuration.
    models: dict[str, Any] = {}
    for name, training in configs.trainings.items():
        start = {"start": models[training.phase.start]} if training.phase.start else {}
        trained = step(train(config=config[name], records=records, **start), "train", name)
        models[name] = trained.outputs["model"]

    # 4. to 7. Judgement.
    others = {f"baseline_{number}": models[name] for number, name in enumerate(configs.baselines, start=1)}
    final = models[configs.final]
    judged = step(evaluate(config=config["evaluate"], records=records, final=final, **others), "evaluate")
    evaluation, predictions = judged.outputs["evaluation"], judged.outputs["predictions"]
    for label in (*configs.dataset.labels, ALL):
        step(label_curves(label=label, evaluation=evaluation), "label_curves", label)
    drawing = {"dataset": dataset, "predictions": predictions, "evaluation": evaluation}
    drawn = step(visualize(config=config["visualize"], **drawing), "visualize")
    # The champion changes from run to run, and to register is an effect: no earlier result stands for it.
    asked = gate(config=config["gate"], records=records, final=final, predictions=predictions)
    step(asked, "gate").set_caching_options(False)
    return {"records": records, **models, **drawing, "gallery": drawn.outputs["gallery"]}


def build_pipeline(configs: StepConfigs, place: Place) -> dsl.base_component.BaseComponent:
    """Builds the pipeline.

    Args:
        configs: What is built: a training for each phase, and curves for each label of the data set.
        place: Adds to a task what the target needs.

    Returns:
        The pipeline. Its parameters are what the run is about, and the steps' configs as JSON.
    """
    parameters = [ABOUT, *configs.parameters()]
    kept = {"dataset": Dataset, "records": Dataset, **dict.fromkeys(configs.trainings, Model)}
    kept |= {"predictions": Dataset, "evaluation": Artifact, "gallery": HTML}
    outputs: Any = NamedTuple("Outputs", list(kept.items()))  # type: ignore[misc]

    def brain_tumor(*values: Any) -> Any:
        config = dict(zip(parameters, values, strict=True))
        return outputs(**tell_story(configs, config, place))

    # Which parameters and outputs there are follows from the phases; KFP reads both from the signature.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = [inspect.Parameter(name, kind, annotation=str) for name in parameters]
    brain_tumor.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        signature, return_annotation=outputs
    )
    brain_tumor.__doc__ = tell_story.__doc__
    description = "Trains and judges a brain-tumor detector on MRI slices."
    return dsl.pipeline(brain_tumor, name=NAME, description=description)
