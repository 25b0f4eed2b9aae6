"""Train, judge and compare a brain-tumor detector on MRI slices."""

import os

# Read when Arrow is first imported. Its own allocator keeps what tables no longer need.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

__version__ = "0.1.0"
