"""What recording costs, what a trace weighs, how fast commands start, what effective parameters cost.

`python -m benchmarks` runs everything; each module also runs alone, as `python -m benchmarks.overhead`.
"""
