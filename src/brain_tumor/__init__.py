"""Train, judge and compare a brain-tumor detector on MRI slices."""
