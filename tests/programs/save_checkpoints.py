"""Saves and loads 59 checkpoints. Arguments: their address, and the number of epochs between new bests."""

import sys

import numpy as np

from brain_tumor.training.checkpoints import Checkpoint, Checkpoints, ProgressState, TrainingState

for epoch in range(1, 60):
    best = epoch - epoch % int(sys.argv[2]) or 1
    progress = ProgressState(best_epoch=best, score=0.1, waited=0, rate_waited=0)
    state = TrainingState(epochs=[{"epoch": 1.0}] * epoch, progress=progress, mlflow_run_id="")
    arrays = {name: [np.zeros(2000)] for name in ("variables", "optimizer")}
    Checkpoints(sys.argv[1]).save(epoch, Checkpoint(state, arrays))
    Checkpoints(sys.argv[1]).load()
