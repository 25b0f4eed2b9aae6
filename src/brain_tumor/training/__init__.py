"""Training: batches, augmentation, phases, checkpoints, devices, callbacks."""
