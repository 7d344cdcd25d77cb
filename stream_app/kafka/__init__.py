"""Kafka: connections, topics, and the transport that Faust consumes and produces through."""
