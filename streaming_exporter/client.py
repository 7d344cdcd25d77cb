"""A client of the HTTP API for programs without an event loop; needs the extra ``http``."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from streaming_exporter.api_answers import (
    IDEMPOTENCY_KEY,
    MAX_WAIT,
    Job,
    JobFile,
    bytes_to_skip,
    call_timeout,
    file_path,
    is_unknown_job,
    jobs_path,
    key_headers,
    not_the_api,
    order_of,
    raise_for_problem,
    raise_for_stream,
    read_document,
    read_files,
    read_job,
    read_job_id,
    read_jobs,
    read_link,
    read_list,
    read_object,
    read_password,
    unreachable,
)
from streaming_exporter.connections import tls_settings, token_headers
from streaming_exporter.errors import ApiError, DownloadError
from streaming_exporter.job_events import JobFollower
from streaming_exporter.payloads import ExportRequest
from streaming_exporter.skipped_bytes import bytes_from

if TYPE_CHECKING:
    import httpx2

CHUNK_BYTES = 256 * 1024
"""Size of the pieces in which a file is read."""


class ExportClient:
    """Calls one API server with one bearer token; ``with ExportClient(url, token) as client``.

    Every method raises :class:`~streaming_exporter.errors.ApiError` where the server cannot be reached or
    refuses the call. The error's ``status`` is the HTTP status, or ``None`` where there was no answer. If
    its ``is_in_doubt`` is set, the answer was lost, and the server can have done what it was asked to do.
    """

    def __init__(self, url: str, token: str) -> None:
        """Prepare the connections.

        Args:
            url: where the API is, such as ``https://exports.example.com``.
            token: the JWT of the user. Spaces and line ends around it are left out.

        Raises:
            BadSettings: no header can have the token.
        """
        if find_spec("httpx2") is None:
            raise ImportError("ExportClient needs httpx2; install streaming-exporter[http]")
        import httpx2

        self.url = url
        self._http = httpx2.Client(base_url=url, headers=token_headers(token), verify=tls_settings())
        # A presigned URL needs no token, and the object store must not see it.
        self._store = httpx2.Client(timeout=httpx2.Timeout(60, connect=10), verify=tls_settings())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()
        self._store.close()

    def submit(self, request: ExportRequest, *, idempotency_key: str | None = None) -> UUID:
        """Request an export; return the id of its job.

        Args:
            request: what to export. ``user_id`` is ignored, because the token names the user.
                ``priority`` and ``claims`` must not be set: the API gives them itself.
            idempotency_key: repeated calls with the same key and request submit one job. Default: a new key.
                An error has it as ``idempotency_key``: with it the call can be repeated after a lost answer.
        """
        answer = self._request("POST", "/exports/jobs", *order_of(request, idempotency_key))
        return read_job_id(answer, self.url)

    def submit_and_wait(
        self, request: ExportRequest, *, seconds: int = MAX_WAIT, idempotency_key: str | None = None
    ) -> Job:
        """Request an export and wait for its end, so that a small one needs one call; return its job.

        Args:
            request: as for :meth:`submit`.
            seconds: the longest wait, from 0 to 30. After it the job is returned unfinished, possibly some
                seconds later. If the API waits for less, the job is followed by events for the rest.
            idempotency_key: as for :meth:`submit`.
        """
        order = order_of(request, idempotency_key, wait=seconds)
        began = time.monotonic()
        answer = self._request("POST", "/exports/jobs", *order, seconds=seconds)
        try:
            if answer.status_code == 200:
                return read_job(read_document(answer, self.url), self.url)
            left = seconds - (time.monotonic() - began)
            return self._followed(read_job_id(answer, self.url), left)
        except ApiError as error:
            error.idempotency_key = order[1][IDEMPOTENCY_KEY]
            raise

    def _followed(self, job_id: UUID, seconds: float) -> Job:
        """Follow the job for ``seconds``, or until it has ended; return it."""
        found = None
        if seconds > 0:
            with suppress(TimeoutError):
                for job in self.events(job_id, timeout=seconds):
                    found = job
        return found or read_job(self.record(job_id), self.url)

    def cancel(self, job_id: UUID) -> None:
        """Cancel an unfinished job. If the job is completed, remove its file."""
        answer = self._request("DELETE", f"/exports/jobs/{job_id}")
        read_object(answer, "status", self.url)

    def record(self, job_id: UUID) -> dict[str, Any]:
        """Return the job as the JSON object of the API, with all its fields."""
        answer = self._request("GET", f"/exports/jobs/{job_id}")
        return read_object(answer, "export_job_id", self.url)

    def job(self, job_id: UUID) -> Job | None:
        """Return the job, or ``None`` if this user has no such job.

        Raises:
            ApiError: the API does not answer, or refuses the call. A 404 of a proxy is such an error, too.
        """
        try:
            return read_job(self.record(job_id), self.url)
        except ApiError as error:
            if not is_unknown_job(error):
                raise
            return None

    def manifest(self, job_id: UUID) -> dict[str, Any]:
        """Return rows, bytes and digest of a completed job's file."""
        answer = self._request("GET", f"/exports/jobs/{job_id}/manifest")
        return read_object(answer, "sha256", self.url)

    def files(self, job_id: UUID) -> list[JobFile]:
        """Return all files of a completed job, by their numbers."""
        found: list[JobFile] = []
        cursor: str | None = ""
        while cursor is not None:
            query = f"?limit=1000{cursor and f'&cursor={cursor}'}"
            page = self._request("GET", f"/exports/jobs/{job_id}/files{query}")
            files, cursor = read_files(read_object(page, "files", self.url), self.url)
            found += files
        return found

    def link(self, job_id: UUID, number: int | None = None) -> str:
        """Return a fresh link to a file, for browsers: it needs no token, and works for some minutes.

        Args:
            job_id: the job.
            number: the number of the file. A job with a single file needs none.
        """
        answer = self._request("GET", file_path(job_id, number), is_link=True)
        return read_link(answer, self.url)

    @contextmanager
    def file(self, job_id: UUID, number: int | None = None, *, start: int = 0) -> Iterator[Iterator[bytes]]:
        """Open a file of a completed job; yields an iterator over its bytes.

        Args:
            job_id: the job.
            number: the number of the file. A job with a single file needs none.
            start: the first byte, counted from 0, to continue an interrupted download.

        Raises:
            DownloadError: the object store failed.
        """
        import httpx2

        link = self.link(job_id, number)
        ranges = {"Range": f"bytes={start}-"} if start else {}
        try:
            with self._store.stream("GET", link, headers=ranges) as response:
                skipped = bytes_to_skip(response, start)
                yield bytes_from(response.iter_raw(CHUNK_BYTES), skipped)
        except httpx2.HTTPError as error:
            raise DownloadError(f"the object store did not deliver the file ({error}); try again") from error

    def rerun(self, job_id: UUID, *, idempotency_key: str | None = None) -> UUID:
        """Run a job again: a new job with the same request; return its id. The key is as for ``submit``."""
        headers = key_headers(idempotency_key)
        answer = self._request("POST", f"/exports/jobs/{job_id}:rerun", headers=headers)
        return read_job_id(answer, self.url)

    def datasets(self) -> dict[str, Any]:
        """Return the datasets that the user can see, as the JSON object of the API."""
        return read_object(self._request("GET", "/exports/datasets"), "datasets", self.url)

    def jobs(
        self, *, status: str | None = None, export_type: str | None = None
    ) -> Generator[Job, None, None]:
        """Yield the jobs of the user, newest first. They are read in pages, as the caller asks for more.

        Args:
            status: only jobs with this status, such as ``completed``.
            export_type: only jobs of this dataset or bundle.
        """
        cursor: str | None = ""
        while cursor is not None:
            page = self._request("GET", jobs_path(status, export_type, cursor))
            jobs, cursor = read_jobs(read_object(page, "jobs", self.url), self.url)
            yield from jobs

    def estimate(self, request: ExportRequest) -> dict[str, Any]:
        """Return how many rows and bytes an export would have, and whether its format can hold them.

        Args:
            request: as for :meth:`submit`.
        """
        answer = self._request("POST", "/exports/jobs:estimate", order_of(request)[0])
        return read_object(answer, "rows", self.url)

    def password(self, job_id: UUID) -> str:
        """Return the password of the zip archives of a job. The API shows it once: keep it."""
        answer = self._request("POST", f"/exports/jobs/{job_id}:password")
        return read_password(read_document(answer, self.url), self.url)

    def destinations(self) -> list[dict[str, Any]]:
        """Return the destinations that the user can send files to, as the JSON objects of the API."""
        answer = self._request("GET", "/exports/destinations")
        return read_list(read_document(answer, self.url), "destinations", self.url)

    def deliveries(self, job_id: UUID) -> list[dict[str, Any]]:
        """Return mails, messages, webhook calls and transfers of a job, as the JSON objects of the API."""
        answer = self._request("GET", f"/exports/jobs/{job_id}/deliveries")
        return read_list(read_document(answer, self.url), "deliveries", self.url)

    def events(
        self, job_id: UUID, *, timeout: float | None = None, admission: float = 0
    ) -> Generator[Job, None, None]:
        """Yield the job at once and after each change; the job that has ended comes last.

        The stream of events is opened again where it breaks; while that fails, the job is read now and then.

        Args:
            job_id: the job.
            timeout: seconds after which a job that has not ended raises :class:`TimeoutError`. Default: none.
            admission: seconds for which an unknown job counts as not admitted yet, for jobs that were
                requested over Kafka.
        """
        follower = JobFollower(job_id, timeout=timeout, admission=admission)
        while True:
            try:
                for job in self._stream(follower):
                    yield job
                    if job.finished:
                        return
            except ApiError as error:
                follower.failed(error)
            if follower.must_poll:
                try:
                    found = read_job(self.record(job_id), self.url)
                except ApiError as error:
                    follower.failed(error)
                else:
                    follower.note_job()
                    yield found
                    if found.finished:
                        return
            time.sleep(follower.pause())

    def _stream(self, follower: JobFollower) -> Generator[Job, None, None]:
        """Yield the jobs of one stream, until it ends or breaks."""
        import httpx2

        limit = httpx2.Timeout(30, read=follower.silence, connect=5)
        try:
            with self._http.stream("GET", follower.path, headers=follower.headers, timeout=limit) as response:
                if response.status_code >= 400:
                    response.read()
                raise_for_stream(response, self.url)
                for line in response.iter_lines():
                    if (job := follower.feed(line)) is not None:
                        yield job
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise unreachable(self.url, error) from error
        except ValueError as error:  # an event that is no job
            raise not_the_api(self.url) from error

    def wait(self, job_id: UUID, *, timeout: float | None = None, admission: float = 0) -> Job:
        """Wait until a job has ended; return it, whatever its end is. Arguments are those of ``events``."""
        last = None
        for job in self.events(job_id, timeout=timeout, admission=admission):
            last = job
        assert last is not None  # noqa: S101
        return last

    def download(
        self,
        job_id: UUID,
        folder: str | Path = ".",
        progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        overwrite: bool = False,
    ) -> list[Path]:
        """Download all files of a completed job into ``folder`` and verify their SHA-256; return their paths.

        A download that was interrupted is continued. A file of the same name with other content stays, and
        the new one gets a number, unless ``overwrite`` is set. ``progress`` gets the bytes so far and in all.

        Raises:
            DownloadError: the object store failed, a file is damaged, or it cannot be written.
        """
        from streaming_exporter.downloads import fetch_all

        return fetch_all(self, job_id, Path(folder), progress, overwrite=overwrite)

    def call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Make any call; return its JSON object, which is empty if the response has no content.

        Args:
            method: the method, such as ``POST``.
            path: the path, with its query.
            body: the JSON object that is sent.
            idempotency_key: for calls that take one: the same key and body again have one effect.
        """
        headers = None if idempotency_key is None else key_headers(idempotency_key)
        return read_document(
            self._request(method, path, body, headers), self.url, can_be_empty=method == "DELETE"
        )

    def _request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        *,
        seconds: float = 0,
        is_link: bool = False,
    ) -> "httpx2.Response":
        import httpx2

        try:
            response = self._http.request(
                method, path, json=body, headers=headers, timeout=call_timeout(seconds)
            )
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            failure = unreachable(self.url, error, method)
            failure.idempotency_key = (headers or {}).get(IDEMPOTENCY_KEY)
            raise failure from error
        try:
            raise_for_problem(response, self.url, method, is_link=is_link)
        except ApiError as failure:
            failure.idempotency_key = (headers or {}).get(IDEMPOTENCY_KEY)
            raise
        return response


Client = ExportClient
"""The name before version 0.2."""
