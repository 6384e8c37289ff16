"""`hourllava world`: make MarathonWorld, long videos with known answers."""
