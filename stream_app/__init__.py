"""The stream application: admits export requests, runs them, and records what happened."""
