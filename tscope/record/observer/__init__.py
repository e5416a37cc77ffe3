"""The observer: what runs inside the user's training process, with its torch and the standard library only.

It copies parameters, batches and gradients, and hands them to a thread that sends them to the recorder. It
computes nothing that the run could notice: see `docs/recording.md`. Python 3.9 syntax; relative imports only,
since the recorder loads a copy of this folder as `_tscope_observer`.
"""
