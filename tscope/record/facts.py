"""The facts of a run: what was started, where, with which versions."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import version

from tscope_format.dtypes import JSON

from tscope.record.options import RecordOptions

GIT_TIMEOUT = 1.0  # seconds: a repository on a slow disk is not worth a wait


def facts_of_run(command: Sequence[str], options: RecordOptions, pid: int) -> dict[str, JSON]:
    """Return what is known of a run when its command has been started."""
    return {
        "command": list(command),
        "cwd": os.getcwd(),
        "host": platform.node(),
        "created": time.time(),
        "updated": time.time(),
        "pid": pid,
        "name": options.name,
        "tscope": version("tscope"),
        "options": {
            "every": options.every,
            "probe": options.probe,
            "output": options.output,
            "outputs": options.outputs,
            "probe_output": options.probe_output,
            "max_examples": options.max_examples,
            "updates": "all" if options.updates else "none",
            "sketch": options.sketch,
        },
        "git": git_commit(os.getcwd()),
        "recorder": {},
        "reports": [],
        **({} if options.fork is None else {"fork": options.fork.facts()}),
    }


def git_commit(folder: str) -> JSON:
    """Return the commit that `folder` has checked out, None if git knows none or does not answer at once."""
    try:
        found = subprocess.run(
            ["git", "-C", folder, "rev-parse", "HEAD"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"commit": found.stdout.strip()} if found.returncode == 0 else None
