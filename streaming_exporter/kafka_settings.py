"""Settings of the connection to Kafka: addresses, TLS and authentication."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from streaming_exporter.errors import BadSettings
from streaming_exporter.file_secret import FileSecret
from streaming_exporter.setting_types import AnyWebUrl, Count, ExistingFile, Servers, Text, in_case
from streaming_exporter.validation import explained, sentence

PREFIX = "EXPORTER_"
"""Prefix of every variable of the service."""

FROM_FILE = "_FILE"
"""Suffix of a variable that names the file with the secret."""


class KafkaSettings(BaseModel):
    """Settings of a connection to Kafka; the settings of the whole service inherit them.

    Raises:
        pydantic.ValidationError: a value is not allowed, or values do not fit each other.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    kafka_bootstrap_servers: Servers = Field(
        default="127.0.0.1:9092", description="Brokers as `host:port`, separated by commas"
    )
    kafka_security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], in_case(str.upper)
    ] = Field(default="PLAINTEXT", description="`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`")
    kafka_sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"], in_case(str.upper)
    ] = Field(default="PLAIN", description="`PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER`")
    kafka_sasl_username: Text | None = Field(default=None, description="User name for SASL")
    kafka_sasl_password: SecretStr | None = Field(default=None, description="Password for SASL")
    kafka_ssl_cafile: ExistingFile | None = Field(
        default=None, description="Certificates to trust for the brokers; default: the system's"
    )
    kafka_ssl_certfile: ExistingFile | None = Field(
        default=None, description="Certificate of the client and its intermediate certificates, PEM"
    )
    kafka_ssl_keyfile: ExistingFile | None = Field(
        default=None, description="Private key of the client, PEM; default: in the file of the certificate"
    )
    kafka_ssl_key_password: SecretStr | None = Field(default=None, description="Password of the private key")
    kafka_oauth_token_url: AnyWebUrl | None = Field(
        default=None, description="Token server of OAUTHBEARER (client credentials grant)"
    )
    kafka_oauth_client_id: Text | None = Field(default=None, description="Client id at the token server")
    kafka_oauth_client_secret: SecretStr | None = Field(
        default=None, description="Client secret at the token server"
    )
    kafka_oauth_scope: Text | None = Field(
        default=None, description="Scope of the token, where the token server needs one"
    )
    kafka_oauth_audience: Text | None = Field(
        default=None, description="Audience of the token, where the token server needs one"
    )
    kafka_oauth_parameters: Text | None = Field(
        default=None, description="Further parameters of the token request, such as `resource=kafka&tenant=a`"
    )
    kafka_oauth_extensions: Text | None = Field(
        default=None, description="SASL extensions, such as `logicalCluster=lkc-1&identityPoolId=pool-2`"
    )
    kafka_oauth_cafile: ExistingFile | None = Field(
        default=None, description="Certificates to trust for the token server; default: the system's"
    )
    kafka_topic_prefix: Text = Field(
        default="",
        pattern=explained(
            r"^[A-Za-z0-9._-]{0,150}$", "at most 150 characters of letters, digits, dots, _ and -"
        ),
        description="Prefix of the names of all topics and of the group, such as `staging.`",
    )
    kafka_partitions: Count = Field(default=8, description="Partitions of topics that the service creates")
    kafka_replication_factor: Count = Field(
        default=1, le=32_767, description="Replicas of topics that the service creates"
    )

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] | None = None) -> Self:
        """Read the variables ``EXPORTER_KAFKA_*``, by default those of this process.

        An empty variable counts as not set. A secret can also be in a file: then the variable with ``_FILE``
        at its end holds the path of that file.

        Raises:
            BadSettings: the text has one line for each variable whose value is not allowed.
        """
        given = os.environ if variables is None else variables
        found = {name.upper(): value for name, value in given.items() if value.strip()}
        values: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            variable = f"{PREFIX}{name.upper()}"
            is_secret = "SecretStr" in repr(field.annotation)
            if is_secret and variable + FROM_FILE in found:
                if variable in found:
                    raise BadSettings(
                        f"{variable} and {variable}{FROM_FILE} are both set; allowed: one of them"
                    )
                values[name] = _secret_in(variable + FROM_FILE, found[variable + FROM_FILE])
            elif variable in found:
                values[name] = found[variable].strip("\r\n" if is_secret else None)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise BadSettings("\n".join(map(_line, error.errors(include_url=False)))) from error

    @model_validator(mode="after")
    def _check_kafka(self) -> Self:
        """Check the settings that need each other.

        Raises:
            ValueError: naming the variable.
        """
        protocol = self.kafka_security_protocol
        uses_sasl = protocol.startswith("SASL")
        if uses_sasl and self.kafka_sasl_mechanism == "OAUTHBEARER":
            for name in ("kafka_oauth_token_url", "kafka_oauth_client_id", "kafka_oauth_client_secret"):
                if getattr(self, name) is None:
                    raise ValueError(
                        f"EXPORTER_{name.upper()}: it is not set; "
                        "EXPORTER_KAFKA_SASL_MECHANISM=OAUTHBEARER needs it"
                    )
        elif uses_sasl and self.kafka_sasl_username is None:
            raise ValueError(
                f"EXPORTER_KAFKA_SASL_USERNAME: it is not set; EXPORTER_KAFKA_SECURITY_PROTOCOL="
                f"{protocol} needs it and EXPORTER_KAFKA_SASL_PASSWORD"
            )
        if self.kafka_ssl_keyfile is not None and self.kafka_ssl_certfile is None:
            raise ValueError(
                "EXPORTER_KAFKA_SSL_CERTFILE: it is not set, and EXPORTER_KAFKA_SSL_KEYFILE is; "
                "allowed: both, or the certificate alone where its file also holds the key"
            )
        if self.kafka_ssl_certfile is not None and "SSL" not in protocol.split("_"):
            raise ValueError(
                "EXPORTER_KAFKA_SSL_CERTFILE: it has no effect with "
                f"EXPORTER_KAFKA_SECURITY_PROTOCOL={protocol}; allowed: SSL, SASL_SSL"
            )
        return self

    def topic(self, name: str) -> str:
        """Return the name of the topic in the cluster: the prefix and ``name``."""
        return self.kafka_topic_prefix + name


def _secret_in(variable: str, path: str) -> FileSecret:
    """Return the secret in the file at ``path``.

    Raises:
        BadSettings: the file is empty or cannot be read.
    """
    try:
        secret = FileSecret(Path(path.strip()))
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(
            f"{variable}: {path!r} cannot be read ({error}); allowed: the path of a file"
        ) from error
    if not secret.get_secret_value().strip():
        raise BadSettings(f"{variable}: {path!r} is empty; allowed: a file that holds the secret")
    return secret


def _line(problem: ErrorDetails) -> str:
    """Return a line with the variable and its error, without its value, which can be a secret."""
    text = sentence(problem)
    return f"{PREFIX}{str(problem['loc'][0]).upper()}: {text}" if problem["loc"] else text
