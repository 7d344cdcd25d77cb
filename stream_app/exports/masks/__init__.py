"""Masks: SQL that replaces the values of columns for callers who must not see them. Pure."""
