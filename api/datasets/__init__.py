"""The catalogue of datasets and formats over HTTP."""
