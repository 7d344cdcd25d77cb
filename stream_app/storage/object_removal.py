"""Removes objects of the bucket: single ones, the files of an attempt or of a job, and open uploads."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from xml.etree.ElementTree import ParseError

from minio.deleteobjects import DeleteObject
from minio.error import S3Error

from stream_app.storage.errors import store_errors
from stream_app.storage.listing import PAGE, ListedObject, ObjectListing, folders_of
from stream_app.storage.manifest import MANIFEST
from stream_app.storage.s3_client import S3Client
from streaming_exporter.errors import ExporterError, Outage

FEW = 3
"""Up to this number of objects, each is removed by a call of its own."""

ABORTS = 3
"""How often an upload that stays in the listing is aborted. The bucket cleaner removes it a day later."""


class ObjectRemoval:
    """Removes objects and open uploads. Every method blocks, and can be repeated after an error."""

    def __init__(self, client: S3Client, bucket: str, listing: ObjectListing) -> None:
        """Prepare the removal of the objects that ``listing`` lists."""
        self._client = client
        self._bucket = bucket
        self._listing = listing

    def remove(self, key: str) -> None:
        """Remove the object. It is no error if it does not exist.

        Raises:
            Retryable: the store failed. The call can be repeated.
        """
        with store_errors():
            self._client.remove_object(self._bucket, key)

    def remove_listed(self, item: ListedObject) -> None:
        """Remove an object or abort an upload. It is no error if it does not exist any more.

        Raises:
            Retryable: the store failed.
        """
        with store_errors():
            if item.upload_id is None:
                self._client.remove_object(self._bucket, item.key)
                return
            try:
                self._client._abort_multipart_upload(self._bucket, item.key, item.upload_id)
            except S3Error as error:
                if error.code != "NoSuchUpload":
                    raise

    def remove_all(self, keys: Iterable[str]) -> None:
        """Remove objects. Missing ones are no error. A store without the call for many gets one for each.

        Raises:
            Retryable: the store failed. Some objects can be removed already. The call can be repeated.
        """
        waiting = iter(keys)
        while page := list(islice(waiting, PAGE)):
            left = page if len(page) <= FEW else self._not_removed(page)
            with store_errors():
                for key in left:
                    self._client.remove_object(self._bucket, key)

    def remove_result(self, key: str) -> None:
        """Remove the file of an attempt; if it is a :data:`MANIFEST`, also all files in its folder.

        Raises:
            Retryable: the store failed. The call can be repeated.
        """
        folders = folders_of(key)
        self._remove_with(key, folders and folders[0])

    def remove_job(self, key: str) -> None:
        """Remove the file of a job that has ended; if it is a :data:`MANIFEST`, all files of the job.

        Raises:
            Retryable: the store failed. The call can be repeated.
        """
        folders = folders_of(key)
        self._remove_with(key, folders and folders[1])

    def _remove_with(self, key: str, folder: str | None) -> None:
        """Remove everything in ``folder`` if ``key`` is a manifest, and ``key`` last.

        Without a folder only ``key`` is removed: an event with a wrong key must not cost objects of others.
        """
        if key.endswith(f"/{MANIFEST}") and folder:
            for page in self._listing.keys_in(folder):
                self.remove_all(found for found in page if found != key)
        self.remove(key)

    def remove_attempts(self, job_id: object, *, before: int) -> int:
        """Remove the objects of the job's attempts with a number below ``before``.

        These are finished files, and open uploads whose worker died.

        Returns:
            The number of removed objects.

        Raises:
            Retryable: the store failed. The call can be repeated.
        """
        return self.remove_unneeded(job_id, lambda found: found.attempt < before)

    def remove_unneeded(self, job_id: object, is_unneeded: Callable[[ListedObject], bool]) -> int:
        """Remove those objects and open uploads of a job for which ``is_unneeded`` is true.

        An upload can be left although the store took its abort: a part that was still being written keeps it
        (S3 API reference, AbortMultipartUpload). So uploads are listed again, and what is left is aborted
        again, at most :data:`ABORTS` times in all.

        Returns:
            The number of removed objects.

        Raises:
            Retryable: the store failed. The call can be repeated.
        """
        left = [item for page in self._listing.pages(job_id) for item in page if is_unneeded(item)]
        self.remove_all(item.key for item in left if item.upload_id is None)
        uploads = [item for item in left if item.upload_id is not None]
        for _ in range(ABORTS):
            for item in uploads:
                self.remove_listed(item)
            if not uploads:
                break
            uploads = [item for item in self._listing.open_uploads(job_id) if is_unneeded(item)]
        return len(left)

    def _not_removed(self, keys: Sequence[str]) -> list[str]:
        """Remove many objects with one call; return those of them that it did not remove."""
        try:
            with store_errors():
                return self._failed_of(keys)
        except Outage:
            raise
        except ExporterError:
            return list(keys)

    def _failed_of(self, keys: Sequence[str]) -> list[str]:
        try:
            errors = self._client.remove_objects(self._bucket, map(DeleteObject, keys))
            return [str(error.name) for error in errors if error.code not in ("NoSuchKey", "NoSuchVersion")]
        except ParseError:  # there is no body, so it is not known which objects are removed
            return list(keys)
