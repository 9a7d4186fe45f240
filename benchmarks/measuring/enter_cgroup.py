"""Becomes the given command inside a cgroup: every byte that it ever uses is charged there.

python -I enter_cgroup.py /sys/fs/cgroup/…/FOLDER /path/to/program argument …
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
    os.execv(sys.argv[2], sys.argv[2:])
