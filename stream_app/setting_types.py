"""What settings look like: each type parses a text, and says what is wrong with it and what is allowed."""

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
"""The longest time in seconds that a setting may name: ten years."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_KEY_PREFIX = re.compile(r"(?=.{0,200}\Z)(?:(?:(?!\.{1,2}(?:/|\Z))[A-Za-z0-9!_.'()-]+)(?:/(?!\Z)|\Z))*")
_REGION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_LOCAL_PART = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}")

_ENDPOINT = "http://HOST[:PORT] or https://HOST[:PORT], or HOST[:PORT]"
_PLAIN_HOST = "a host name or an IP address, without scheme and port"
_DATABASE = "postgresql://USER:PASSWORD@HOST[:PORT]/DATABASE, several hosts separated by commas"
_ADDRESS = "NAME@DOMAIN or Display name <NAME@DOMAIN>"


def host(text: str) -> str:
    """A host name or an IP address; IPv6 with or without brackets.

    Raises:
        ValueError: it is neither.
    """
    if not is_host(text):
        raise ValueError(f"it is no host; allowed: {_PLAIN_HOST}")
    return text


def endpoint(text: str) -> str:
    """The address of an object store, without a slash at its end.

    Raises:
        ValueError: it is more than a scheme, a host and a port.
    """
    parts = parse_url(text if "://" in text else f"//{text}", _ENDPOINT)
    if parts.scheme not in ("", "http", "https"):
        raise ValueError(f"its scheme is {parts.scheme}; allowed: {_ENDPOINT}")
    if parts.path.strip("/"):
        raise ValueError(f"it has a path, which S3 does not know; allowed: {_ENDPOINT}")
    _refuse_rest(parts, _ENDPOINT)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme else parts.netloc


def web_url(text: str) -> str:
    """An absolute URL, without slashes at its end.

    Raises:
        ValueError: it is none, or has a user name, a query or a fragment.
    """
    parts = parse_web_url(text)
    _refuse_rest(parts, WEB_URL)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def origins(text: str) -> str:
    """``*``, or origins separated by commas.

    Raises:
        ValueError: one of them is none.
    """
    if text == "*":
        return text
    allowed = "* or http(s)://HOST[:PORT], separated by commas"
    found = []
    for part in filter(None, map(str.strip, text.split(","))):
        parts = parse_url(part, allowed)
        if parts.scheme not in ("http", "https") or parts.path.strip("/"):
            raise ValueError(f"{part!r} is no origin; allowed: {allowed}")
        _refuse_rest(parts, allowed)
        found.append(f"{parts.scheme}://{parts.netloc}")
    return ",".join(found)


def networks(text: str) -> str:
    """IP addresses and networks, separated by commas.

    Raises:
        ValueError: one of them is none.
    """
    found = [part.strip() for part in text.split(",") if part.strip()]
    for part in found:
        try:
            ip_network(part, strict=False)
        except ValueError as error:
            raise ValueError(
                f"{part!r} is no network; allowed: IP addresses and networks such as 10.0.0.0/8, "
                "separated by commas"
            ) from error
    return ",".join(found)


def domains(text: str) -> str:
    """``*``, or mail domains separated by commas, in lower case.

    Raises:
        ValueError: one of them is none.
    """
    if text.strip() == "*":
        return "*"
    found = [part.strip().lower() for part in text.split(",") if part.strip()]
    for part in found:
        if not is_host(_ascii_domain(part)):
            raise ValueError(
                f"{part!r} is no domain; allowed: domains such as example.com, separated by commas"
            )
    return ",".join(found)


def host_patterns(text: str) -> str:
    """Host names separated by commas, in lower case; ``*.example.com`` means every name below example.com.

    Raises:
        ValueError: one of them is no host name.
    """
    found = [part.strip().lower() for part in text.split(",") if part.strip()]
    for part in found:
        if not is_host(part.removeprefix("*.")):
            raise ValueError(
                f"{part!r} is no host; allowed: names such as hooks.example.com or *.example.com, "
                "separated by commas"
            )
    return ",".join(found)


def mail_address(text: str) -> str:
    """A sender as mails carry it: the domain in its ASCII form.

    Raises:
        ValueError: it is no address, or one that SMTP servers do not take.
    """
    name, address = parseaddr(text)
    local, at, domain = address.rpartition("@")
    if not at or (name == "" and address != text.strip("<> ")):
        raise ValueError(f"it is no mail address; allowed: {_ADDRESS}")
    if not _LOCAL_PART.fullmatch(local) or local.startswith(".") or local.endswith(".") or ".." in local:
        raise ValueError(f"{local!r} cannot stand before the @; allowed: {_ADDRESS} with an ASCII NAME")
    plain = _ascii_domain(domain)
    if not is_host(plain):
        raise ValueError(f"{domain!r} is no domain; allowed: {_ADDRESS}")
    if plain == domain:
        return text
    return text.replace(address, f"{local}@{plain}")


def bucket(text: str) -> str:
    """A bucket's name.

    Raises:
        ValueError: S3 does not allow it.
    """
    if not _BUCKET.fullmatch(text) or ".." in text:
        raise ValueError(
            "it is no name of a bucket; allowed: 3 to 63 letters, digits, dots and hyphens, "
            "a letter or digit at both ends"
        )
    return text


def key_prefix(text: str) -> str:
    """A folder in a bucket, without slashes at its ends.

    Raises:
        ValueError: it has characters that some stores or tools do not take in keys.
    """
    folder = text.strip("/")
    if not _KEY_PREFIX.fullmatch(folder) or "jobs" in folder.split("/"):
        raise ValueError(
            "it is no folder; allowed: names of letters, digits and ! - _ . ' ( ), separated by "
            "single slashes, at most 200 characters; no name is . or .. or jobs"
        )
    return folder


def region(text: str) -> str:
    """A region's name.

    Raises:
        ValueError: it has other characters than letters, digits, hyphens and underscores.
    """
    if not _REGION.fullmatch(text):
        raise ValueError(
            "it is no region; allowed: letters, digits, hyphens and underscores, as in us-east-1"
        )
    return text


def database_url(secret: SecretStr) -> SecretStr:
    """A database's URL.

    Raises:
        ValueError: it has another scheme, a port that is none, or a parameter that cannot work.
    """
    text = secret.get_secret_value()
    if not text.startswith(("postgresql://", "postgres://")):
        raise ValueError(f"it is no URL of PostgreSQL; allowed: {_DATABASE}")
    if not text.isprintable() or " " in text:
        raise ValueError(f"it has blanks or control characters; allowed: {_DATABASE}")
    authority = re.split(r"[/?#]", text.partition("://")[2], maxsplit=1)[0]
    for server in filter(None, authority.rpartition("@")[2].split(",")):
        _, colon, port = server.rpartition("]")[2].rpartition(":")
        if colon and not is_port(port):
            raise ValueError(f"{port!r} is no port; allowed: {_DATABASE}, and ports from 1 to 65535")
    parameters.DatabaseUrl.parse(text)
    return secret


def path_in_folder(path: Path) -> Path:
    """The path of a file that is to be written.

    Raises:
        ValueError: its folder does not exist, or it is a folder itself.
    """
    if not str(path).isprintable() or path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError("it is no place for a file; allowed: a path in a folder that exists")
    return path


def _refuse_rest(parts: SplitResult, allowed: str) -> None:
    if parts.query or parts.fragment:
        raise ValueError(f"it has a query or a fragment; allowed: {allowed}")


def _ascii_domain(domain: str) -> str:
    if domain.isascii():
        return domain
    try:
        import idna  # comes with what the service needs, not with the client library alone
    except ImportError:
        raise ValueError(
            f"{domain!r} is not ASCII; allowed: its ASCII form, which begins with xn--"
        ) from None
    try:
        return idna.encode(domain, uts46=True).decode()
    except idna.IDNAError as error:
        raise ValueError(f"{domain!r} is no domain ({error}); allowed: {_ADDRESS}") from error


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
    """Whether only this machine reaches ``host``."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def is_local_url(url: str) -> bool:
    """Whether ``url`` (or host and port) leads to this machine."""
    return is_loopback(urlsplit(url if "://" in url else f"//{url}").hostname or "")
