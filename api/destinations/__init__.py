"""Destinations: the list, and the test of one."""
