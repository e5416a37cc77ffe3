"""Recording: a command runs with an observer inside, and this side writes down what it sends.

`recorder` runs the command, `ingest` owns the trace, `projection` is a process of its own; `observer/` is the
other side, in the user's interpreter.
"""

from tscope.record.options import RecordOptions
from tscope.record.recorder import record

__all__ = ["RecordOptions", "record"]
