"""``exporter doctor``: do the database, the topics and the bucket fit together. Changes nothing."""
