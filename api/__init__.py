"""Serves status over HTTP, takes requests, hands out downloads."""
