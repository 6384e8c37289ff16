"""The pictures of MarathonWorld: from a script to frames."""
