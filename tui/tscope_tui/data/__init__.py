"""What the screen shows, read from traces: pure functions and immutable snapshots, no terminal."""
