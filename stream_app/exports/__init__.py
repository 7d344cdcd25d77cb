"""The export engine: it reads rows from PostgreSQL and writes them to a file in the object store."""
