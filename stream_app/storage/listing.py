"""The listing of the bucket: files of attempts, and open multipart uploads. Synchronous, page by page."""

import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from uuid import UUID

from stream_app.settings import Settings
from stream_app.storage.errors import store_errors
from stream_app.storage.s3_client import S3Client

ATTEMPTS_PREFIX = "jobs"
_ATTEMPT = re.compile(r"([0-9]{1,10})(-[0-9a-f]{16})?")
_PART = re.compile(r"part-([0-9]{1,10})-([0-9]{1,10})-[0-9a-f]{16}-")

PAGE = 1_000
"""Largest number of objects that a store lists in one answer, or removes in one call."""


@dataclass(frozen=True, slots=True)
class ListedObject:
    """The file of an attempt, or, if it has an ``upload_id``, an open multipart upload."""

    key: str
    job_id: UUID
    attempt: int
    since: datetime
    upload_id: str | None = None


def object_key(
    job_id: object, attempt: int, file_name: str, *, suffix: str = "", prefix: str = ATTEMPTS_PREFIX
) -> str:
    """Return the key of one attempt's file, which no other attempt overwrites.

    ``suffix`` distinguishes two attempts with the same number: a database can give out a number again after
    it was restored or has failed over.
    """
    return f"{prefix}/{job_id}/{attempt}{suffix and '-' + suffix}/{file_name}"


def part_prefix(number: int, part_attempt: int) -> str:
    """Return the beginning of the names of the objects that an attempt at a part writes.

    No other attempt has it, not even one with the same numbers.
    """
    return f"part-{number:05}-{part_attempt}-{new_key_suffix()}-"


def part_of_key(key: str, folder: str) -> tuple[int, int] | None:
    """Return the part and the attempt at it that wrote an object, or ``None`` if the object is of no part.

    Args:
        key: the key of the object.
        folder: the folder of the files of all parts.
    """
    found = _PART.match(key.removeprefix(f"{folder}/")) if key.startswith(f"{folder}/") else None
    return found and (int(found[1]), int(found[2]))


def folders_of(key: str) -> tuple[str, str] | None:
    """Return the folder of the attempt that wrote an object, and that of its job.

    ``None`` if the key is not the key of an attempt's file. The prefix of the key is not checked: it can have
    been changed since.
    """
    match key.split("/"):
        case [*prefix, jobs, job, attempt, _] if jobs == ATTEMPTS_PREFIX and _ATTEMPT.fullmatch(attempt):
            with suppress(ValueError):
                UUID(job)
                folder = "/".join([*prefix, jobs, job])
                return f"{folder}/{attempt}", folder
    return None


def new_key_suffix() -> str:
    """Return a suffix that no other attempt has."""
    return secrets.token_hex(8)


def attempts_prefix(settings: Settings) -> str:
    """Return the folder of the files of all attempts. This service has no objects outside of it."""
    return "/".join(filter(None, (settings.s3_key_prefix, ATTEMPTS_PREFIX)))


class ObjectListing:
    """Lists the objects of attempts. It ignores all other objects in the bucket."""

    def __init__(self, client: S3Client, bucket: str, prefix: str = ATTEMPTS_PREFIX) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def pages(self, job_id: object = None) -> Iterator[list[ListedObject]]:
        """Yield the objects of all jobs, or of one job, in pages of up to :data:`PAGE` objects.

        Raises:
            Retryable: the store failed.
        """
        yield from self._files(self._prefix_of(job_id))
        yield from self.uploads(job_id)

    def uploads(self, job_id: object = None) -> Iterator[list[ListedObject]]:
        """Yield the open multipart uploads of all jobs, or of one job, in pages.

        Raises:
            Retryable: the store failed.
        """
        yield from self._uploads(self._prefix_of(job_id))

    def open_uploads(self, job_id: object = None) -> list[ListedObject]:
        """Return the multipart uploads that were neither completed nor aborted.

        Raises:
            Retryable: the store failed.
        """
        return [item for page in self.uploads(job_id) for item in page]

    def keys_in(self, folder: str) -> Iterator[list[str]]:
        """Yield the keys of all objects in a folder and its folders, in pages.

        Raises:
            Retryable: the store failed.
        """
        with store_errors():
            items = self._client.list_objects(self._bucket, prefix=f"{folder}/", recursive=True)
            while page := [str(item.object_name) for item in islice(items, PAGE)]:
                yield page

    def _prefix_of(self, job_id: object) -> str:
        return f"{self._prefix}/" if job_id is None else f"{self._prefix}/{job_id}/"

    def _files(self, prefix: str) -> Iterator[list[ListedObject]]:
        with store_errors():
            items = self._client.list_objects(self._bucket, prefix=prefix, recursive=True)
            while page := list(islice(items, PAGE)):
                yield _known(self._found(item.object_name, item.last_modified) for item in page)

    def _uploads(self, prefix: str) -> Iterator[list[ListedObject]]:
        # The client library has no public method for this call, and its answer lacks the next page's marker.
        key = upload_id = None
        more = True
        with store_errors():
            while more:
                answer = self._client._list_multipart_uploads(
                    self._bucket, prefix=prefix, key_marker=key, upload_id_marker=upload_id
                )
                yield _known(
                    self._found(item.object_name, item.initiated_time, item.upload_id)
                    for item in answer.uploads
                )
                more = answer.is_truncated and bool(answer.uploads)
                if more:
                    key, upload_id = answer.uploads[-1].object_name, answer.uploads[-1].upload_id

    def _found(
        self, key: str | None, since: datetime | None, upload_id: str | None = None
    ) -> ListedObject | None:
        """Return the object, or ``None`` if its key is not one of an attempt."""
        folder, _, rest = str(key).partition(f"{self._prefix}/")
        match rest.split("/", 2):
            case [job, attempt, _] if folder == "" and (number := _ATTEMPT.fullmatch(attempt)):
                try:
                    return ListedObject(
                        str(key), UUID(job), int(number[1]), since or datetime.now(UTC), upload_id
                    )
                except ValueError:
                    return None
        return None


def _known(items: Iterator[ListedObject | None]) -> list[ListedObject]:
    return [item for item in items if item is not None]
