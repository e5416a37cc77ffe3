"""The two stages of the program, the browser and an opened run: state, actions and what is painted.

They know no terminal: a `Host` does for them what needs one.
"""
