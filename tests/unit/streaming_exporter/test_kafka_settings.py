"""The connection settings of the client library, read without the service's settings."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from stream_app.settings import Settings
from streaming_exporter.errors import BadSettings
from streaming_exporter.kafka_settings import KafkaSettings

SASL = {
    "EXPORTER_KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
    "EXPORTER_KAFKA_SASL_MECHANISM": "scram-sha-512",
    "EXPORTER_KAFKA_SASL_USERNAME": " billing ",
    "EXPORTER_KAFKA_SASL_PASSWORD": " secret ",
}


def test_the_variables_of_kafka_are_read_and_others_ignored() -> None:
    settings = KafkaSettings.from_environment(
        {**SASL, "EXPORTER_KAFKA_BOOTSTRAP_SERVERS": "a, b:1", "EXPORTER_S3_BUCKET": "x", "HOME": "/"}
    )
    assert settings.kafka_bootstrap_servers == "a:9092,b:1"
    assert (settings.kafka_security_protocol, settings.kafka_sasl_mechanism) == ("SASL_SSL", "SCRAM-SHA-512")
    assert settings.kafka_sasl_username == "billing"
    assert settings.kafka_sasl_password == SecretStr(" secret ")
    assert settings.topic("exports.requests") == "exports.requests"


def test_an_empty_variable_counts_as_not_set() -> None:
    assert KafkaSettings.from_environment({"EXPORTER_KAFKA_PARTITIONS": " "}) == KafkaSettings()


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORTER_KAFKA_TOPIC_PREFIX", "staging.")
    assert KafkaSettings.from_environment().topic("exports.requests") == "staging.exports.requests"


def test_a_secret_comes_from_its_file_and_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    variables = SASL | {"EXPORTER_KAFKA_SASL_PASSWORD_FILE": str(file)}
    del variables["EXPORTER_KAFKA_SASL_PASSWORD"]
    password = KafkaSettings.from_environment(variables).kafka_sasl_password
    assert password is not None
    assert password.get_secret_value() == "first"
    file.write_text("second, longer\n")
    assert password.get_secret_value() == "second, longer"
    variables["EXPORTER_KAFKA_SASL_PASSWORD_FILE"] = str(tmp_path / "nowhere")
    with pytest.raises(BadSettings, match=r"EXPORTER_KAFKA_SASL_PASSWORD_FILE: .*nowhere' cannot be read"):
        KafkaSettings.from_environment(variables)
    (tmp_path / "empty").write_text("\n")
    variables["EXPORTER_KAFKA_SASL_PASSWORD_FILE"] = str(tmp_path / "empty")
    with pytest.raises(BadSettings, match=r"EXPORTER_KAFKA_SASL_PASSWORD_FILE: .*empty' is empty"):
        KafkaSettings.from_environment(variables)
    with pytest.raises(BadSettings, match=r"_PASSWORD and EXPORTER_KAFKA_SASL_PASSWORD_FILE are both set"):
        KafkaSettings.from_environment(SASL | variables)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"EXPORTER_KAFKA_PARTITIONS": "many"}, "EXPORTER_KAFKA_PARTITIONS"),
        ({"EXPORTER_KAFKA_BOOTSTRAP_SERVERS": "http://a"}, "EXPORTER_KAFKA_BOOTSTRAP_SERVERS"),
        ({"EXPORTER_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "EXPORTER_KAFKA_SASL_USERNAME"),
        (SASL | {"EXPORTER_KAFKA_SASL_MECHANISM": "oauthbearer"}, "EXPORTER_KAFKA_OAUTH_TOKEN_URL"),
    ],
)
def test_an_error_names_the_variable_and_shows_no_secret(variables: dict[str, str], named: str) -> None:
    with pytest.raises(BadSettings, match=f"^{named}: ") as raised:
        KafkaSettings.from_environment(variables)
    assert "secret " not in str(raised.value)


def test_the_service_has_the_same_settings() -> None:
    assert issubclass(Settings, KafkaSettings)
    assert KafkaSettings.model_fields.keys() <= Settings.model_fields.keys()
