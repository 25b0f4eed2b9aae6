"""The configuration: its schemas, and how Hydra composes it from `yaml/` (see `compose`)."""

from brain_tumor.config.base import Schema, from_json, to_json
from brain_tumor.config.dataset import (
    AnyDataset,
    BucketDataset,
    DatasetConfig,
    DirectoryDataset,
    RoboflowDataset,
    SyntheticDataset,
    parse_dataset,
)
from brain_tumor.config.fields import HEADS, SPLITS, Head, Split, Threshold
from brain_tumor.config.pipeline import (
    Config,
    EvaluateConfig,
    GateConfig,
    RecordsConfig,
    StepConfigs,
    VisualizeConfig,
)
from brain_tumor.config.training import AugmentationConfig, ModelConfig, PhaseConfig, TrainConfig

__all__ = [
    "HEADS",
    "SPLITS",
    "AnyDataset",
    "AugmentationConfig",
    "BucketDataset",
    "Config",
    "DatasetConfig",
    "DirectoryDataset",
    "EvaluateConfig",
    "GateConfig",
    "Head",
    "ModelConfig",
    "PhaseConfig",
    "RecordsConfig",
    "RoboflowDataset",
    "Schema",
    "Split",
    "StepConfigs",
    "SyntheticDataset",
    "Threshold",
    "TrainConfig",
    "VisualizeConfig",
    "from_json",
    "parse_dataset",
    "to_json",
]
