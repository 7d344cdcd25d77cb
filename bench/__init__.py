"""Measures this project and other ways to do the same, in one run: ``make bench``."""
