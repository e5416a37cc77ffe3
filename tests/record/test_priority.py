from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tscope.record.priority import end_lowest_priority

START = "from tscope.record.priority import lowest_priority; lowest_priority(); print(flush=True); input()"


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system has no SCHED_IDLE")
def test_projections_take_idle_time_only_until_the_run_is_over():
    process = subprocess.Popen([sys.executable, "-c", START], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
    end_lowest_priority(process.pid)
    assert os.sched_getscheduler(process.pid) == os.SCHED_OTHER
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
    process.communicate(b"\n")


def test_a_process_that_is_gone_is_no_error():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    end_lowest_priority(process.pid)
