"""The SQL of an export, and what it shows of rows. Pure."""
