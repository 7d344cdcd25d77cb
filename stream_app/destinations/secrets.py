"""The secrets of destinations. The datasets file has the names of variables and files, and never a secret."""

from collections.abc import Iterator
from pathlib import Path

from stream_app.datasets.destinations import SECRETS, Destination, S3Destination
from stream_app.destinations.errors import DestinationError
from stream_app.setting_sources import secret_variable
from stream_app.setting_types import is_local_url
from stream_app.settings import Settings
from streaming_exporter.kafka_settings import FROM_FILE


def secret_of(destination: Destination, name: str) -> str | None:
    """Return a secret, such as ``password``; ``None`` if the destination has no such secret.

    It is read anew for each connection, so a changed secret is used without a restart.

    Raises:
        DestinationError: the variable is not set, or the file cannot be read.
    """
    found = _secret_or_fault(destination, name)
    if isinstance(found, _Fault):
        raise DestinationError("the service lacks a secret of the destination", detail=str(found))
    return found


def missing_secrets(destination: Destination) -> Iterator[tuple[str, str]]:
    """Yield the key of the datasets file and a text for each secret that is missing."""
    for name in SECRETS[destination.kind]:
        found = _secret_or_fault(destination, name)
        if isinstance(found, _Fault):
            yield found.key, str(found)


def is_plain_http(destination: Destination, settings: Settings) -> bool:
    """Return whether files go to another machine without encryption, unless the service's own do too."""
    endpoint = destination.endpoint if isinstance(destination, S3Destination) else None
    return (
        endpoint is not None
        and endpoint.startswith("http://")
        and endpoint != settings.s3_endpoint
        and not is_local_url(endpoint)
    )


class _Fault(Exception):
    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


def _secret_or_fault(destination: Destination, name: str) -> str | _Fault | None:
    variable: str | None = getattr(destination, f"{name}_env")
    path: Path | None = getattr(destination, f"{name}_file")
    if variable is not None:
        try:
            secret = secret_variable(variable)
        except ValueError as error:
            return _Fault(f"{name}_env", str(error))
        if secret is None:
            also = f"{variable}{FROM_FILE}"
            return _Fault(
                f"{name}_env",
                f"the variable {variable} is not set; set it, or {also} to a file that has the secret",
            )
        return secret.get_secret_value()
    if path is None:
        return None
    try:
        content = path.read_text("utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        return _Fault(f"{name}_file", f"{str(path)!r} cannot be read ({reason})")
    return content or _Fault(f"{name}_file", f"{str(path)!r} is empty")
