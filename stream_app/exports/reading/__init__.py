"""Reads the rows of an export, over one connection or several, and checks what is read."""
