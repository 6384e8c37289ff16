"""Features of many videos, computed once and kept."""
