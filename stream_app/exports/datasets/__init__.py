"""What can be exported: one file for each dataset, plus a registry."""
