"""tscope."""
