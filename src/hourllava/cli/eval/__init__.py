"""`hourllava eval`: measure how well a model sees, remembers and finds moments."""
