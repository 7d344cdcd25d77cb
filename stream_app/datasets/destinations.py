"""Destinations of the datasets file: places that finished files are sent to, and who can use them. Pure."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from stream_app.datasets.caller import ALL_DATA, Caller
from stream_app.datasets.destination_paths import EACH_FILE, PathPattern, check_folder
from stream_app.datasets.models import VARIABLE, Entry, Label, Labels, Name, Role
from stream_app.setting_types import Bucket, Endpoint, Host, Region
from streaming_exporter.errors import Rejected

DEFAULT_PATH = "{dataset}/{date}/{job_id}/{file_name}"
"""The path of files if a destination has none: no file of another job is at the same place."""

SSH_PORT = 22

_HOST_KEY = re.compile(
    r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-[a-z0-9@.-]+) [A-Za-z0-9+/]{20,}={0,3}( .*)?"
)

Variable = Annotated[str, StringConstraints(pattern=VARIABLE)]
User = Annotated[str, StringConstraints(min_length=1, max_length=255)]


def _pattern(text: str) -> str:
    PathPattern.parse(text)
    return text


def _folder(text: str) -> str:
    plain = text.strip("/")
    if plain:
        check_folder(plain)
    return text.rstrip("/") if text != "/" else text


def _host_key(text: str) -> str:
    if not _HOST_KEY.fullmatch(text.strip()):
        raise ValueError(
            "it is not a public host key (it is not shown); allowed: the type and the key, such as "
            "ssh-ed25519 AAAA…, as `ssh-keyscan` prints them after the name of the host"
        )
    return text.strip()


Pattern = Annotated[str, AfterValidator(_pattern)]
Folder = Annotated[str, StringConstraints(max_length=500), AfterValidator(_folder)]
HostKey = Annotated[str, AfterValidator(_host_key)]


class DestinationBase(Entry):
    """What destinations of all kinds have.

    Attributes:
        label: the name for people.
        labels: names in other languages.
        path: where each file is stored: folders and a name, with fields such as {date} (default:
            {dataset}/{date}/{job_id}/{file_name}).
        manifest: whether a list of the files is stored after them: for jobs with several files (default),
            always, or never.
        manifest_path: where that list is stored (default: the path, with the name manifest.json).
        prefix: the folder of all paths.
        roles: roles that can use the destination. Without roles and users everybody can.
        users: ids of users that can use the destination.
        datasets: the datasets and bundles that can be sent to it (default: all).
    """

    name: Name
    label: Label | None = None
    labels: Labels = Field(default_factory=dict)
    path: Pattern = DEFAULT_PATH
    manifest: Literal["several", "always", "never"] = "several"
    manifest_path: Pattern | None = None
    prefix: Folder = ""
    roles: tuple[Role, ...] | None = Field(None, min_length=1)
    users: tuple[User, ...] | None = Field(None, min_length=1)
    datasets: tuple[Name, ...] | None = Field(None, min_length=1)

    @field_validator("path")
    @classmethod
    def _names_each_file(cls, text: str) -> str:
        if not PathPattern.parse(text).fields & EACH_FILE:
            raise ValueError("it needs {file_name} or {number}: the files of a job would replace each other")
        return text

    def allows(self, caller: Caller, export_type: str) -> bool:
        """Return whether the caller can send files of the dataset or bundle here."""
        if self.datasets is not None and export_type not in self.datasets:
            return False
        return self.is_for(caller)

    def is_for(self, caller: Caller) -> bool:
        """Return whether the destination exists for the caller."""
        if self.roles is None and self.users is None:
            return True
        by_role = self.roles is not None and caller.has_any(self.roles)
        return by_role or caller.user_id in (self.users or ())


class S3Destination(DestinationBase):
    """A bucket of an S3 server.

    Without keys of its own it is used with the credentials of the service: those of its settings or its role.

    Attributes:
        kind: s3.
        endpoint: the address of the server (default: that of the service).
        region: the region that requests are signed for (default: that of the service).
        bucket: the bucket.
        access_key_env: the environment variable with the access key.
        access_key_file: the file with the access key.
        secret_key_env: the environment variable with the secret key.
        secret_key_file: the file with the secret key.
        path_style: whether the bucket is in the path of requests, not in the name of the host (default: as
            the server needs it).
        ca_file: the file with the certificates of the authorities that the server's certificate can be of
            (default: those of the system).
        sse: how the server encrypts: none (default), s3 or kms.
        sse_kms_key: the key of kms.
    """

    kind: Literal["s3"]
    endpoint: Endpoint | None = None
    region: Region | None = None
    bucket: Bucket
    access_key_env: Variable | None = None
    access_key_file: Path | None = None
    secret_key_env: Variable | None = None
    secret_key_file: Path | None = None
    path_style: bool | None = None
    ca_file: Path | None = None
    sse: Literal["none", "s3", "kms"] = "none"
    sse_kms_key: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        _one_of(self, "access_key")
        _one_of(self, "secret_key")
        if self.has_keys != _is_set(self, "secret_key"):
            raise ValueError(
                "access key and secret key belong together; set both, or none for the service's role"
            )
        if self.sse_kms_key is not None and self.sse != "kms":
            raise ValueError('sse_kms_key needs sse = "kms"')
        return self

    @property
    def has_keys(self) -> bool:
        """Whether it has keys of its own."""
        return _is_set(self, "access_key")


class SftpDestination(DestinationBase):
    """A folder of an SFTP server.

    Attributes:
        kind: sftp.
        host: the host.
        port: the port (default: 22).
        user: the name to sign in with.
        password_env: the environment variable with the password.
        password_file: the file with the password.
        private_key_env: the environment variable with the private key.
        private_key_file: the file with the private key.
        passphrase_env: the environment variable with the passphrase of the private key.
        passphrase_file: the file with the passphrase of the private key.
        host_key: the public key of the server, or several, of which it must have one.
        known_hosts: the file with the public keys of servers, as OpenSSH writes it.
    """

    kind: Literal["sftp"]
    host: Host
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] = SSH_PORT
    user: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    password_env: Variable | None = None
    password_file: Path | None = None
    private_key_env: Variable | None = None
    private_key_file: Path | None = None
    passphrase_env: Variable | None = None
    passphrase_file: Path | None = None
    host_key: Annotated[
        tuple[HostKey, ...] | None,
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
    ] = None
    known_hosts: Path | None = None

    @field_validator("host_key", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        if value == [] or value == ():
            raise ValueError("it must have at least one key")
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        for secret in ("password", "private_key", "passphrase"):
            _one_of(self, secret)
        if not _is_set(self, "password") and not _is_set(self, "private_key"):
            raise ValueError(
                "it has no secret; set password_env, password_file, private_key_env or private_key_file"
            )
        if _is_set(self, "passphrase") and not _is_set(self, "private_key"):
            raise ValueError("a passphrase needs private_key_env or private_key_file")
        if (self.host_key is None) == (self.known_hosts is None):
            raise ValueError(
                "it must have exactly one of host_key and known_hosts: an unknown server is never trusted"
            )
        return self


Destination: TypeAlias = S3Destination | SftpDestination

KINDS: Mapping[str, type[S3Destination | SftpDestination]] = {"s3": S3Destination, "sftp": SftpDestination}
"""The models by the kind of the destination."""

SECRETS = {
    "s3": ("access_key", "secret_key"),
    "sftp": ("password", "private_key", "passphrase"),
}
"""The secrets of each kind. The file has the names of variables (``_env``) or of files (``_file``)."""

FILES = (
    *(f"{secret}_file" for secrets in SECRETS.values() for secret in secrets),
    *("ca_file", "known_hosts"),
)
"""Keys with the path of a file, which counts from the folder of the datasets file."""


def find_destination(
    destinations: Mapping[str, Destination], name: str, caller: Caller, export_type: str
) -> Destination:
    """Return the destination ``name`` if it exists for the caller and the dataset.

    Raises:
        Rejected: there is no such destination, or it is not for them; both have the same text.
    """
    destination = destinations.get(name)
    if destination is None or not destination.allows(caller, export_type):
        usable = sorted(key for key, item in destinations.items() if item.allows(caller, export_type))
        raise Rejected(
            f"there is no destination {name!r} for you and this dataset",
            code="unknown_destination",
            field="destination",
            allowed=usable,
        )
    return destination


def roles_of(destination: Destination | None) -> frozenset[str]:
    """Return the roles that the rights to the destination depend on."""
    roles = frozenset() if destination is None else frozenset(destination.roles or ())
    return roles | {ALL_DATA} if roles else roles


def _is_set(entry: DestinationBase, secret: str) -> bool:
    return getattr(entry, f"{secret}_env") is not None or getattr(entry, f"{secret}_file") is not None


def _one_of(entry: DestinationBase, secret: str) -> None:
    if getattr(entry, f"{secret}_env") is not None and getattr(entry, f"{secret}_file") is not None:
        raise ValueError(f"{secret}_env and {secret}_file are both set; allowed: one of them")
