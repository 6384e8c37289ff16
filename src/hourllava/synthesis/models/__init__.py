"""Models behind one interface: a server, hourllava itself, or MarathonWorld's truth."""
