"""Computes the box losses and their gradients with JAX. Arguments: files of the boxes and of the results."""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from brain_tumor.losses import BOX_LOSSES

boxes = np.load(sys.argv[1])
results = {}
for name, kind in BOX_LOSSES.items():
    loss = kind(reduction="sum")

    def value(predicted, truth, loss=loss):
        return loss(truth[None, None], predicted[None, None])

    function = jax.jit(jax.vmap(jax.value_and_grad(value)))
    answer = function(jnp.array(boxes["predicted"]), jnp.array(boxes["truth"]))
    results[name], results[name + "_gradient"] = answer
assert "tensorflow" not in sys.modules
np.savez(sys.argv[2], **results)
