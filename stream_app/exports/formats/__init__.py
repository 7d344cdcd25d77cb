"""How a file is written: one file for each format, plus a registry."""
