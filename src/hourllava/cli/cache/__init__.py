"""`hourllava cache`: the memories that were kept."""
