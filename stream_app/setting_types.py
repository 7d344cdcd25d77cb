"""Types of settings. Each parses a text; its error states what is wrong and what is allowed."""

import re
from email.utils import parseaddr
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
)

from stream_app import database_url as parameters
from streaming_exporter.setting_types import WEB_URL, is_host, is_port, parse_url, parse_web_url

YEARS = 10 * 366 * 86_400
"""The longest time that a setting can have: ten years, in seconds."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_KEY_PREFIX = re.compile(r"(?=.{0,200}\Z)(?:(?:(?!\.{1,2}(?:/|\Z))[A-Za-z0-9!_.'()-]+)(?:/(?!\Z)|\Z))*")
_REGION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_LOCAL_PART = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}")

_ENDPOINT = "http://HOST[:PORT] or https://HOST[:PORT], or HOST[:PORT]"
_PLAIN_HOST = "a host name or an IP address, without scheme and port"
_DATABASE = "postgresql://USER:PASSWORD@HOST[:PORT]/DATABASE, several hosts separated by commas"
_ADDRESS = "NAME@DOMAIN or Display name <NAME@DOMAIN>"


def host(text: str) -> str:
    """Check a host name or an IP address; IPv6 with or without brackets.

    Raises:
        ValueError: the text is neither.
    """
    if not is_host(text):
        raise ValueError(f"it is not a host; allowed: {_PLAIN_HOST}")
    return text


def endpoint(text: str) -> str:
    """Return the address of an object store without a slash at its end.

    Raises:
        ValueError: the text has more than a scheme, a host and a port.
    """
    parts = parse_url(text if "://" in text else f"//{text}", _ENDPOINT)
    if parts.scheme not in ("", "http", "https"):
        raise ValueError(f"its scheme is {parts.scheme}; allowed: {_ENDPOINT}")
    if parts.path.strip("/"):
        raise ValueError(f"it has a path, but S3 endpoints have none; allowed: {_ENDPOINT}")
    _refuse_rest(parts, _ENDPOINT)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme else parts.netloc


def web_url(text: str) -> str:
    """Return an absolute URL without slashes at its end.

    Raises:
        ValueError: the text is not an absolute URL, or has a user name, a query or a fragment.
    """
    parts = parse_web_url(text)
    _refuse_rest(parts, WEB_URL)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def origins(text: str) -> str:
    """Return ``*``, or the origins without slashes at their ends, separated by commas.

    Raises:
        ValueError: a part is not an origin.
    """
    if text == "*":
        return text
    allowed = "* or http(s)://HOST[:PORT], separated by commas"
    found = []
    for part in filter(None, map(str.strip, text.split(","))):
        parts = parse_url(part, allowed)
        if parts.scheme not in ("http", "https") or parts.path.strip("/"):
            raise ValueError(f"{part!r} is not an origin; allowed: {allowed}")
        _refuse_rest(parts, allowed)
        found.append(f"{parts.scheme}://{parts.netloc}")
    return ",".join(found)


def networks(text: str) -> str:
    """Return IP addresses and networks without blanks, separated by commas.

    Raises:
        ValueError: a part is neither.
    """
    found = [part.strip() for part in text.split(",") if part.strip()]
    for part in found:
        try:
            ip_network(part, strict=False)
        except ValueError as error:
            raise ValueError(
                f"{part!r} is not a network; allowed: IP addresses and networks such as 10.0.0.0/8, "
                "separated by commas"
            ) from error
    return ",".join(found)


def domains(text: str) -> str:
    """Return ``*``, or mail domains in lower case, separated by commas.

    Raises:
        ValueError: a part is not a domain.
    """
    if text.strip() == "*":
        return "*"
    found = [part.strip().lower() for part in text.split(",") if part.strip()]
    for part in found:
        if not is_host(_ascii_domain(part)):
            raise ValueError(
                f"{part!r} is not a domain; allowed: domains such as example.com, separated by commas"
            )
    return ",".join(found)


def host_patterns(text: str) -> str:
    """Return host names in lower case, separated by commas.

    ``*.example.com`` stands for every name below example.com.

    Raises:
        ValueError: a part is not a host name.
    """
    found = [part.strip().lower() for part in text.split(",") if part.strip()]
    for part in found:
        if not is_host(part.removeprefix("*.")):
            raise ValueError(
                f"{part!r} is not a host; allowed: names such as hooks.example.com or *.example.com, "
                "separated by commas"
            )
    return ",".join(found)


def mail_address(text: str) -> str:
    """Return the sender of mails, with its domain in ASCII form.

    Raises:
        ValueError: the text is not an address, or SMTP servers do not accept the address.
    """
    name, address = parseaddr(text)
    local, at, domain = address.rpartition("@")
    if not at or (name == "" and address != text.strip("<> ")):
        raise ValueError(f"it is not a mail address; allowed: {_ADDRESS}")
    if not _LOCAL_PART.fullmatch(local) or local.startswith(".") or local.endswith(".") or ".." in local:
        raise ValueError(f"{local!r} cannot stand before the @; allowed: {_ADDRESS} with an ASCII NAME")
    plain = _ascii_domain(domain)
    if not is_host(plain):
        raise ValueError(f"{domain!r} is not a domain; allowed: {_ADDRESS}")
    if plain == domain:
        return text
    return text.replace(address, f"{local}@{plain}")


def bucket(text: str) -> str:
    """Check the name of a bucket.

    Raises:
        ValueError: S3 does not allow the name.
    """
    if not _BUCKET.fullmatch(text) or ".." in text:
        raise ValueError(
            "S3 does not allow this name of a bucket; allowed: 3 to 63 letters, digits, dots and hyphens, "
            "a letter or digit at both ends"
        )
    return text


def key_prefix(text: str) -> str:
    """Return a folder in a bucket without slashes at its ends.

    Raises:
        ValueError: the folder has characters that some stores or tools do not accept in keys.
    """
    folder = text.strip("/")
    if not _KEY_PREFIX.fullmatch(folder) or "jobs" in folder.split("/"):
        raise ValueError(
            "it is not a folder; allowed: names of letters, digits and ! - _ . ' ( ), separated by "
            "single slashes, at most 200 characters; no name is . or .. or jobs"
        )
    return folder


def region(text: str) -> str:
    """Check the name of a region.

    Raises:
        ValueError: the name has other characters than letters, digits, hyphens and underscores.
    """
    if not _REGION.fullmatch(text):
        raise ValueError(
            "it is not a region; allowed: letters, digits, hyphens and underscores, as in us-east-1"
        )
    return text


def database_url(secret: SecretStr) -> SecretStr:
    """Check the URL of a database.

    Raises:
        ValueError: the URL has another scheme, an invalid port, or a parameter that cannot work.
    """
    text = secret.get_secret_value()
    if not text.startswith(("postgresql://", "postgres://")):
        raise ValueError(f"it is not a URL of PostgreSQL; allowed: {_DATABASE}")
    if not text.isprintable() or " " in text:
        raise ValueError(f"it has blanks or control characters; allowed: {_DATABASE}")
    authority = re.split(r"[/?#]", text.partition("://")[2], maxsplit=1)[0]
    for server in filter(None, authority.rpartition("@")[2].split(",")):
        _, colon, port = server.rpartition("]")[2].rpartition(":")
        if colon and not is_port(port):
            # What stands there is not shown: it is a part of the password if that has a slash, for example.
            raise ValueError(
                f"a port is not valid; allowed: {_DATABASE}, and ports from 1 to 65535; "
                "in a password / ? # and @ must be percent-encoded"
            )
    parameters.DatabaseUrl.parse(text)
    return secret


def path_in_folder(path: Path) -> Path:
    """Check the path of a file that the service writes.

    Raises:
        ValueError: the folder does not exist, or the path is a folder.
    """
    try:
        fits = str(path).isprintable() and not path.is_dir() and path.absolute().parent.is_dir()
    except OSError:  # the system has no paths of this form, such as too long ones
        fits = False
    if not fits:
        raise ValueError(
            "it is not the path of a file that can be written; allowed: a path in an existing folder"
        )
    return path


def _refuse_rest(parts: SplitResult, allowed: str) -> None:
    if parts.query or parts.fragment:
        raise ValueError(f"it has a query or a fragment; allowed: {allowed}")


def _ascii_domain(domain: str) -> str:
    if domain.isascii():
        return domain
    try:
        import idna  # a dependency of the service, but not of the client library
    except ImportError:
        raise ValueError(
            f"{domain!r} is not ASCII; allowed: its ASCII form, which begins with xn--"
        ) from None
    try:
        return idna.encode(domain, uts46=True).decode()
    except idna.IDNAError as error:
        raise ValueError(f"{domain!r} is not a domain ({error}); allowed: {_ADDRESS}") from error


Seconds = Annotated[float, Field(gt=0, le=YEARS, allow_inf_nan=False)]
SecondsOrNone = Annotated[float, Field(ge=0, le=YEARS, allow_inf_nan=False)]
Days = Annotated[int, Field(ge=1, le=36_500)]
Port = Annotated[int, Field(ge=1, le=65_535)]
Host = Annotated[str, AfterValidator(host)]
Endpoint = Annotated[str, AfterValidator(endpoint)]
WebUrl = Annotated[str, AfterValidator(web_url)]
Origins = Annotated[str, AfterValidator(origins)]
Networks = Annotated[str, AfterValidator(networks)]
Domains = Annotated[str, AfterValidator(domains)]
HostPatterns = Annotated[str, AfterValidator(host_patterns)]
MailAddress = Annotated[str, AfterValidator(mail_address)]
Bucket = Annotated[str, AfterValidator(bucket)]
KeyPrefix = Annotated[str, AfterValidator(key_prefix)]
Region = Annotated[str, AfterValidator(region)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(database_url)]
FileToWrite = Annotated[Path, AfterValidator(path_in_folder)]


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def is_local_url(url: str) -> bool:
    """Return whether ``url``, or a host with a port, leads to this machine."""
    return is_loopback(urlsplit(url if "://" in url else f"//{url}").hostname or "")
