"""Writes the files of an export: frames, compresses, encrypts, limits and lists them."""
