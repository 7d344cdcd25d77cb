"""The page at ``/``: static files that call the API as any other client does."""
