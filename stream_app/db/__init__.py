"""The state database: its engine, tables, notifications and migrations."""
