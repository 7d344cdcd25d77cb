"""Sends finished files to the destinations of the datasets file: buckets of S3 servers, and SFTP servers."""
