"""The `hourllava` command: one file per command, no logic of its own."""
