"""Generators of documents; not part of any installed package."""
