"""Training of one phase: batches, augmentation, checkpoints, devices, callbacks."""
