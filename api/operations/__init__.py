"""Health and metrics, for operators and monitoring."""
