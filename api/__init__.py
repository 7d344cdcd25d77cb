"""The HTTP API: it takes requests, serves the status of jobs, and redirects to their files."""
