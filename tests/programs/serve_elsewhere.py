"""Predicts with a logged model in a process without brain_tumor.

Arguments: its URI, and files of the images and of the predictions.
"""

import sys

import numpy as np


class NoLibrary:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "brain_tumor":
            raise ModuleNotFoundError("brain_tumor is not installed here")


sys.meta_path.insert(0, NoLibrary())
import mlflow

uri, inputs, outputs = sys.argv[1:]
model = mlflow.pyfunc.load_model(uri)
arrays = {**np.load(inputs), "example": model.input_example}
answers = {
    f"{name} {head}": values
    for name, images in arrays.items()
    for head, values in model.predict(images).items()
}
np.savez(outputs, **answers)
assert not [name for name in sys.modules if name.split(".")[0] == "brain_tumor"]
