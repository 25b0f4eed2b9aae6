"""Is killed while it writes a draft. Arguments: the folder, and the name."""

import os
import signal
import sys
from pathlib import Path

from brain_tumor.runtime.drafts import draft_folder

with draft_folder(Path(sys.argv[1]), sys.argv[2]) as draft:
    (draft / "folder").mkdir()
    (draft / "folder" / "file").write_text("half")
    (draft / "link").symlink_to(sys.argv[1])
    os.kill(os.getpid(), signal.SIGKILL)
