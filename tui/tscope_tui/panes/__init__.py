"""Panes: what fills one rectangle of the screen, as lines of spans. Pure; one pane a file."""
