"""The reference of the API's calls, as a page."""
