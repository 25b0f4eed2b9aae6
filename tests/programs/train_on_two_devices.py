"""Trains on one and on two logical CPUs, and prints how far the results differ."""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from brain_tumor.artifacts.model import open_model
from brain_tumor.artifacts.records import open_records
from brain_tumor.config import TrainConfig, from_json
from brain_tumor.model.saving import load_model
from brain_tumor.runtime.step import step
from brain_tumor.training import train as training
from brain_tumor.training.optimizer import FusedAdamW

config = from_json(TrainConfig, sys.argv[1], "training")
records, folder = open_records(sys.argv[2]), Path(sys.argv[3])
keep = FusedAdamW.__init__


def with_large_epsilon(self, *args, **options):
    keep(self, *args, **{**options, "epsilon": 1.0})


FusedAdamW.__init__ = with_large_epsilon
models, epochs = [], []
for name, devices in (("one", []), ("two", ["CPU:0", "CPU:1"])):
    training.training_devices = lambda devices=devices: devices
    with step():
        training.train(config, records, folder / name)
    model = open_model(folder / name)
    models.append(load_model(model))
    epochs.append(model.description.phases[0].epochs[0])
for model in models:
    norms = [
        layer
        for layer in model.get_layer("backbone").layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert norms and not any(norm.synchronized for norm in norms)
pairs = zip(models[0].get_weights(), models[1].get_weights(), strict=True)
# Relative difference for values above 1, such as moving variances.
print("weights", max(float((np.abs(a - b) / np.maximum(1, np.abs(a))).max()) for a, b in pairs))
pairs = [(value, epochs[1][name]) for name, value in epochs[0].items() if name != "seconds"]
print("figures", max(abs(value - other) for value, other in pairs))
