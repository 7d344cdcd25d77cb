"""The source databases: their pools of connections, snapshots, sessions and errors."""
