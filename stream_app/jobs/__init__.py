"""A job's life: its states, its record, and who works on it."""
