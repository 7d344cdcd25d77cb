"""One export: rows in, file out."""
