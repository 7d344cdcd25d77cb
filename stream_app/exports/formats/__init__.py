"""The file formats: one module or package for each format, and a registry."""
