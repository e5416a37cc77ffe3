"""What recording costs, what a trace weighs, and how fast the commands start.

`python -m benchmarks` runs everything; each module also runs alone, as `python -m benchmarks.overhead`.
"""
