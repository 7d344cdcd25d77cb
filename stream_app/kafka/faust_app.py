"""Builds the Faust app that reads and writes Kafka."""

import os
import tempfile
from pathlib import Path

import faust
from faust.types.auth import CredentialsT
from yarl import URL

from stream_app.kafka.transport import App
from stream_app.settings import Settings
from streaming_exporter.kafka_connection import bootstrap_servers, tls_context, uses_tokens
from streaming_exporter.oauth import OAuthTokenProvider

METADATA_SECONDS = 5
"""Seconds until new partitions and re-created topics are noticed. Kafka's default is 5 minutes."""


def create_faust_app(settings: Settings, name: str) -> App:
    """Return an app without agents and services.

    Args:
        name: the client id at the brokers.
    """
    return App(
        settings.group,
        broker=[URL(f"kafka://{server}") for server in bootstrap_servers(settings)],
        broker_credentials=_credentials(settings),
        broker_client_id=name,
        broker_session_timeout=10.0,
        broker_heartbeat_interval=3.0,
        broker_max_poll_interval=86_400.0,
        broker_commit_interval=0.5,
        broker_request_timeout=30.0,
        broker_max_poll_records=500,
        consumer_metadata_max_age_ms=METADATA_SECONDS * 1_000,
        producer_metadata_max_age_ms=METADATA_SECONDS * 1_000,
        producer_request_timeout=30.0,
        producer_linger=0.0,
        producer_max_request_size=1_048_576,
        stream_wait_empty=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_replication_factor=settings.kafka_replication_factor,
        table_standby_replicas=0,
        web_enabled=False,
        worker_redirect_stdouts=False,
        key_serializer="raw",
        value_serializer="raw",
        store="memory://",
        datadir=Path(tempfile.gettempdir(), f"streaming-exporter-{os.getuid()}"),
    )


def bytes_topic(app: faust.App, topic: str) -> faust.TopicT:
    """Return a topic whose keys and values are bytes that Faust does not decode."""
    return app.topic(topic, key_serializer="raw", value_serializer="raw", value_type=bytes)


def _credentials(settings: Settings) -> CredentialsT | None:
    protocol, context = settings.kafka_security_protocol, tls_context(settings)
    if uses_tokens(settings):
        return faust.OAuthCredentials(oauth_cb=OAuthTokenProvider(settings), ssl_context=context)
    if protocol.startswith("SASL"):
        password = settings.kafka_sasl_password
        return faust.SASLCredentials(
            username=settings.kafka_sasl_username,
            password=password.get_secret_value() if password else None,
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None
