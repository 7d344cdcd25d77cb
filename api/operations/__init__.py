"""What operators and monitoring read: health and metrics."""
