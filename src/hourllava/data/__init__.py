"""Records, tables and statistics of video question data."""
