"""What a file of records says: reading it, and its one form here."""
