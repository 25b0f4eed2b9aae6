"""Train, evaluate and compare a brain-tumor detector on MRI slices."""

import os

# Read when Arrow is first imported. Arrow's own allocator does not release the memory of deleted tables.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

__version__ = "0.1.0"
