"""Work that takes long: an analysis in a process of its own, the verification of a trace."""
