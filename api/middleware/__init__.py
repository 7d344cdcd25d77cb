"""ASGI middleware of the API, and what it shares with the routes."""
