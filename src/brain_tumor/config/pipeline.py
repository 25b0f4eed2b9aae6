"""The whole configuration, and the part of it that each step of the pipeline gets."""

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator

from brain_tumor.config.base import Schema, to_json
from brain_tumor.config.dataset import AnyDataset
from brain_tumor.config.fields import (
    CONSTANT,
    DEFAULT_THRESHOLD,
    FINAL,
    Count,
    CountOrZero,
    Fraction,
    Seed,
    Split,
    Threshold,
)
from brain_tumor.config.training import ModelConfig, PhaseConfig, TrainConfig, TrainingConfig

# The components have one input per baseline.
MOST_BASELINES = 4


class RecordsConfig(Schema):
    """The build_tfrecords step."""

    images_per_shard: Count = 1024
    """Maximum number of images per TFRecord file."""
    max_class_weight: Annotated[float, Field(ge=1)] = 20.0
    """Upper limit of a label's weight in the weighted loss."""


class EvaluateConfig(Schema):
    """The evaluate step."""

    split: Split = "test"
    """The split to evaluate on."""
    threshold: Threshold = DEFAULT_THRESHOLD
    """Probability threshold from which a label counts as predicted: a number for all labels, or `tuned` for
    the threshold per label with the highest F1 on valid, unless 0.5 is as good on held-out patients."""
    bootstrap_samples: Count = 2000
    """Number of bootstrap resamples (of patients) per interval."""
    seed: Seed = 0
    """Seed of the resampling."""
    batch_size: Count = 64
    """Images per forward pass."""


class VisualizeConfig(Schema):
    """The visualize step."""

    gallery_images: CountOrZero = 12
    """Number of slices in the gallery of true and predicted boxes."""
    seed: Seed = 0
    """Seed of the selection of slices."""


class GateConfig(Schema):
    """The gate step."""

    model: Annotated[str, Field(pattern=r"^[^/:@]+$")] = "brain-tumor"
    """The model's name in MLflow's registry."""
    margin: Fraction = 0.02
    """Non-inferiority margin: how much worse than the champion's a figure may be."""


# Names that no phase can have: the pipeline's parameters and outputs, and the models' names in tables.
RESERVED_NAMES = (
    *("about", "dataset", "records", "evaluate", "visualize", "gate"),
    *("predictions", "evaluation", "gallery"),
    *(FINAL, CONSTANT),
)


class Config(Schema):
    """The whole configuration, as Hydra composes it."""

    dataset: AnyDataset
    """Where the images come from; `dataset=` chooses the kind."""
    records: RecordsConfig = RecordsConfig()
    """The build_tfrecords step."""
    model: ModelConfig = ModelConfig()
    """The architecture."""
    training: TrainingConfig = TrainingConfig()
    """The settings that all phases share."""
    phases: dict[str, PhaseConfig]
    """The trainings by name. A phase's `start` names the phase that it continues."""
    final: str
    """The phase whose model is the pipeline's result."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """The evaluate step."""
    visualize: VisualizeConfig = VisualizeConfig()
    """The visualize step."""
    gate: GateConfig = GateConfig()
    """The gate step."""
    seed: Seed = 0
    """The default of the steps' seeds."""

    @model_validator(mode="after")
    def _check_phases(self) -> "Config":
        for name in self.phases:
            if not re.fullmatch("[a-z][a-z0-9_]*", name) or name in RESERVED_NAMES:
                raise ValueError(
                    f"names a phase {name!r}; use lowercase letters, digits and _, but none of "
                    f"{', '.join(RESERVED_NAMES)}"
                )
        if self.final not in self.phases:
            raise ValueError(
                f"has final={self.final}, which is not one of the phases {', '.join(self.phases)}"
            )
        if len(self.phases[self.final].heads) < 2:
            raise ValueError(
                f"has final={self.final}, but that phase's model lacks one of the heads labels, boxes"
            )
        order = _in_order(self.phases)
        for name, phase in order.items():
            if phase.start and phase.heads != self.phases[phase.start].heads:
                raise ValueError(
                    f"has phases.{name}.heads={phase.heads}, but {phase.start}, which it starts from, has "
                    f"{self.phases[phase.start].heads}"
                )
        baselines = _baselines(order, self.final)
        if len(baselines) > MOST_BASELINES:
            raise ValueError(
                f"has {len(baselines)} models to compare with the final one ({', '.join(baselines)}); "
                f"at most {MOST_BASELINES} are possible"
            )
        return self

    def steps(self) -> "StepConfigs":
        """Each step's configuration."""
        shared = {name: getattr(self.training, name) for name in TrainingConfig.model_fields}
        phases = _in_order(self.phases)
        return StepConfigs(
            dataset=self.dataset,
            records=self.records,
            trainings={
                name: TrainConfig(name=name, phase=phase, model=self.model, **shared)
                for name, phase in phases.items()
            },
            final=self.final,
            evaluate=self.evaluate,
            visualize=self.visualize,
            gate=self.gate,
        )


@dataclass(frozen=True)
class StepConfigs:
    """Each step's configuration.

    Attributes:
        dataset: For ingest.
        records: For build_tfrecords.
        trainings: For the train steps, by phase name; each phase comes after the one that it starts from.
        final: The phase whose model is the pipeline's result.
        evaluate: For evaluate.
        visualize: For visualize.
        gate: For gate.
    """

    dataset: AnyDataset
    records: RecordsConfig
    trainings: dict[str, TrainConfig]
    final: str
    evaluate: EvaluateConfig
    visualize: VisualizeConfig
    gate: GateConfig

    @property
    def baselines(self) -> list[str]:
        """The phases evaluated as baselines: those that no other phase starts from, except the final one."""
        return _baselines({name: config.phase for name, config in self.trainings.items()}, self.final)

    def parameters(self) -> dict[str, str]:
        """The pipeline's parameters: each step's config as JSON, a training's under the phase's name."""
        sections: dict[str, Schema] = {"dataset": self.dataset, "records": self.records, **self.trainings}
        sections |= {"evaluate": self.evaluate, "visualize": self.visualize, "gate": self.gate}
        return {name: to_json(config) for name, config in sections.items()}


def _in_order(phases: dict[str, PhaseConfig]) -> dict[str, PhaseConfig]:
    """The phases, each after the one that it starts from, otherwise in their given order."""
    for name, phase in phases.items():
        if phase.start is not None and phase.start not in phases:
            raise ValueError(
                f"has phases.{name}.start={phase.start}, which is not one of the phases {', '.join(phases)}"
            )
    ordered: dict[str, PhaseConfig] = {}
    while len(ordered) < len(phases):
        waiting = [name for name in phases if name not in ordered]
        ready = [name for name in waiting if phases[name].start in (None, *ordered)]
        if not ready:
            raise ValueError(f"has phases that start from each other: {', '.join(waiting)}")
        ordered[ready[0]] = phases[ready[0]]
    return ordered


def _baselines(phases: dict[str, PhaseConfig], final: str) -> list[str]:
    starts = {phase.start for phase in phases.values()}
    return [name for name in phases if name not in starts and name != final]
