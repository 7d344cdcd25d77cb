"""Jobs: their states, their records, the queue that workers claim from, and the projector."""
