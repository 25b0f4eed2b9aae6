"""The pipeline as a story."""

from collections.abc import Callable
from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Dataset, Model

from components.build_tfrecords import build_tfrecords
from components.evaluate import evaluate as judge
from components.ingest import ingest
from components.label_curves import label_curves
from components.train import train
from components.visualize import visualize as draw

NAME = "brain-tumor"


class Artifacts(NamedTuple):
    """What a run leaves behind."""

    dataset: Dataset
    records: Dataset
    baseline_classification: Model
    baseline_box: Model
    phase1_box: Model
    phase2_classification: Model
    phase3_finetune: Model
    predictions: Dataset
    gallery: dsl.HTML


def build_pipeline(
    labels: list[str], place: Callable[[dsl.PipelineTask], None]
) -> dsl.base_component.BaseComponent:
    """Builds the pipeline.

    Args:
        labels: The data set's labels: each has its own curves in the dashboard.
        place: Adds to a task what the target it will run on needs.

    Returns:
        The pipeline. Its parameters are the steps' configs as JSON.
    """

    def step(task: dsl.PipelineTask, name: str) -> dsl.PipelineTask:
        place(task.set_display_name(name))
        return task

    @dsl.pipeline(name=NAME, description="Trains and judges a brain-tumor detector on MRI slices.")
    def brain_tumor(
        dataset: str,
        records: str,
        baseline_classification: str,
        baseline_box: str,
        phase1_box: str,
        phase2_classification: str,
        phase3_finetune: str,
        evaluate: str,
        visualize: str,
    ) -> Artifacts:
        """From images to a judged model.

        1. ingest: read the images and boxes, set bad ones aside, report.
        2. build TFRecords: what training reads, and its statistics.
        3. baseline classification, baseline box: one model a task, for comparison.
        4. phase 1 box: the backbone and the box head.
        5. phase 2 classification: the class head alone.
        6. phase 3 fine-tune: both heads and the top of the backbone.
        7. evaluate: the final model beside the baselines.
        8. curves: one ROC curve and confusion matrix a label.
        9. visualize: the pictures on one page.
        """
        # 1. to 2. Data.
        ingested = step(ingest(config=dataset), "ingest")
        built = step(build_tfrecords(config=records, dataset=ingested.outputs["dataset"]), "build TFRecords")
        data = built.outputs["records"]

        # 3. Baselines: what each task reaches alone.
        only_labels = step(
            train(config=baseline_classification, records=data), "train: baseline classification"
        )
        only_boxes = step(train(config=baseline_box, records=data), "train: baseline box")

        # 4. to 6. The model, phase by phase.
        phase1 = step(train(config=phase1_box, records=data), "train: phase 1 box")
        phase2 = step(
            train(config=phase2_classification, records=data, start=phase1.outputs["model"]),
            "train: phase 2 classification",
        )
        phase3 = step(
            train(config=phase3_finetune, records=data, start=phase2.outputs["model"]),
            "train: phase 3 fine-tune",
        )
        models = {
            "final": phase3.outputs["model"],
            "baseline_classification": only_labels.outputs["model"],
            "baseline_box": only_boxes.outputs["model"],
        }

        # 7. to 9. Judgement.
        evaluated = step(judge(config=evaluate, records=data, **models), "evaluate")
        predictions = evaluated.outputs["predictions"]
        for label in labels:
            step(label_curves(label=label, predictions=predictions), f"curves: {label}")
        drawn = step(
            draw(config=visualize, dataset=ingested.outputs["dataset"], predictions=predictions, **models),
            "visualize",
        )
        return Artifacts(
            dataset=ingested.outputs["dataset"],
            records=data,
            baseline_classification=only_labels.outputs["model"],
            baseline_box=only_boxes.outputs["model"],
            phase1_box=phase1.outputs["model"],
            phase2_classification=phase2.outputs["model"],
            phase3_finetune=phase3.outputs["model"],
            predictions=predictions,
            gallery=drawn.outputs["gallery"],
        )

    return brain_tumor
