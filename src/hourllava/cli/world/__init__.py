"""`hourllava world`: make MarathonWorld videos with questions, and measure blind guessing."""
