"""Trains the detector on Keras's JAX backend in a process that cannot import TensorFlow."""

import sys


class NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError("there is no TensorFlow here")


sys.meta_path.insert(0, NoTensorFlow())
import keras
import numpy as np

from brain_tumor.config import ModelConfig, PhaseConfig
from brain_tumor.losses import CIoULoss
from brain_tumor.model.detector import build_detector, freeze, training_model
from brain_tumor.model.heads import pooled_box_head
from brain_tumor.training.compile import compile_model

assert keras.backend.backend() == "jax"
keras.utils.set_random_seed(0)
config = ModelConfig(
    backbone="resnet50", weights="none", image_size=32, batchnorm_momentum=0.9, head_width=16, dropout=0.0
)
model = build_detector(config, 3, ["labels", "boxes"])
freeze(model, ["labels", "boxes"], 0)
frozen = model.get_layer("backbone").get_weights()
trained = training_model(model, ["labels", "boxes"])
compile_model(trained, PhaseConfig(learning_rate=3e-3), {"a": 1.0, "b": 2.0, "c": 3.0}, steps=10)

rng = np.random.default_rng(0)
images = rng.uniform(0, 255, (8, 32, 32, 3)).astype("float32")
labels = rng.integers(0, 2, (8, 3)).astype("float32")
boxes = np.sort(rng.random((8, 3, 2, 2)), axis=2).reshape(8, 3, 4).astype("float32") * labels[..., None]
truth = {"labels": labels, "boxes": boxes, "boxes_map": boxes}
history = trained.fit(images, truth, batch_size=8, epochs=10, verbose=0, shuffle=False).history

losses = history["loss"]
assert np.isfinite(losses).all(), losses
assert losses[-1] < 0.9 * losses[0], losses
for name in ("labels_loss", "boxes_map_loss"):
    assert history[name][-1] < history[name][0], (name, history[name])
assert 0 <= history["boxes_iou"][0] < history["boxes_iou"][-1] <= 1, history["boxes_iou"]
after = model.get_layer("backbone").get_weights()
assert all(np.array_equal(weight, other) for weight, other in zip(frozen, after, strict=True))
for name in ("boxes_mse", "boxes_mae"):
    assert history[name][-1] < history[name][0], (name, history[name])

features = keras.Input((2, 2, 8))
pooled = keras.Model(features, pooled_box_head([features], 3, 16))
pooled.compile(keras.optimizers.Adam(0.01), loss=CIoULoss())
losses = pooled.fit(rng.random((8, 2, 2, 8)), boxes, batch_size=8, epochs=20, verbose=0).history["loss"]
assert losses[-1] < 0.95 * losses[0], losses
assert "brain_tumor.training.optimizer" not in sys.modules
assert "tensorflow" not in sys.modules
assert "jax" in sys.modules
print("trained", *losses)
