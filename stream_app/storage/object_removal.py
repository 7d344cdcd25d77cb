"""Removes objects of the bucket: single ones, the files of an attempt or of a job, and open uploads."""

from collections.abc import Callable, Iterable

from stream_app.storage.errors import store_errors
from stream_app.storage.listing import ListedObject, ObjectListing, folders_of
from stream_app.storage.manifest import MANIFEST
from stream_app.storage.s3_client import S3Client

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

    def remove_all(self, keys: Iterable[str]) -> None:
        """Remove objects, many with one call where the store has such a call. Missing ones are no error.

        Raises:
            Retryable: the store failed. The call can be repeated.
        """
        self._listing.remove_all(keys)

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
                self._listing.remove(item)
            if not uploads:
                break
            uploads = [item for item in self.open_uploads(job_id) if is_unneeded(item)]
        return len(left)

    def open_uploads(self, job_id: object = None) -> list[ListedObject]:
        """Return the multipart uploads that were neither completed nor aborted.

        Raises:
            Retryable: the store failed.
        """
        return [item for page in self._listing.uploads(job_id) for item in page]
