"""The HTTP API as the command line uses it."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from streaming_exporter.errors import ApiError, DownloadError

if TYPE_CHECKING:
    import httpx

UNFINISHED = ("pending", "processing")


class Failure(BaseModel):
    """Why a job failed."""

    code: str
    message: str


class Job(BaseModel):
    """What the API says about a job, as far as the command line shows it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    export_job_id: UUID
    status: str
    export_type: str
    format: str
    row_count: int | None = None
    estimated_rows: int | None = None
    file_size: int | None = None
    file_name: str | None = None
    sha256: str | None = None
    error: Failure | None = None

    @property
    def finished(self) -> bool:
        """Whether the job has ended, one way or another."""
        return self.status not in UNFINISHED


class Api:
    """One API server, seen by the bearer of one token; ``with Api(url, token) as api``.

    Every method raises :class:`~streaming_exporter.errors.ApiError` when the server is away or refuses.
    """

    def __init__(self, url: str, token: str) -> None:
        if find_spec("httpx") is None:
            raise ImportError("Api needs httpx; install streaming-exporter[http]")
        import httpx

        self.url = url
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=httpx.Timeout(30, connect=5)
        )
        # A presigned link is its own proof: the token must not travel to the object store.
        self._store = httpx.Client(timeout=httpx.Timeout(60, connect=10))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()
        self._store.close()

    def record(self, job_id: UUID) -> dict[str, Any]:
        """The job as the API gives it."""
        return self._document(f"/exports/jobs/{job_id}")

    def job(self, job_id: UUID) -> Job | None:
        """The job, or ``None`` where the API knows no such job of this user."""
        try:
            return Job.model_validate(self.record(job_id))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        except ValueError as error:
            raise self._stranger() from error

    def manifest(self, job_id: UUID) -> dict[str, Any]:
        """Rows, bytes and digest of a finished job's file."""
        return self._document(f"/exports/jobs/{job_id}/manifest")

    @contextmanager
    def file(self, job_id: UUID) -> Iterator[Iterator[bytes]]:
        """The file's bytes as they come.

        Raises:
            DownloadError: the object store failed.
        """
        import httpx

        link = self._get(f"/exports/jobs/{job_id}/download").headers["location"]
        try:
            with self._store.stream("GET", link) as response:
                if response.status_code != 200:
                    raise DownloadError(f"the object store answered {response.status_code}; try again")
                yield response.iter_raw(256 * 1024)
        except httpx.HTTPError as error:
            raise DownloadError(f"the object store did not deliver the file ({error}); try again") from error

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Any other call; what it answers, or nothing where there is nothing to say."""
        response = self._request(method, path, body)
        return {} if response.status_code == 204 else self._content(response)

    def _document(self, path: str) -> dict[str, Any]:
        return self._content(self._get(path))

    def _content(self, response: "httpx.Response") -> dict[str, Any]:
        try:
            content = response.json()
        except ValueError as error:
            raise self._stranger() from error
        if not isinstance(content, dict):
            raise self._stranger()
        return content

    def _stranger(self) -> ApiError:
        return ApiError(f"{self.url} does not answer as the exporter's API does", status=200)

    def _get(self, path: str) -> "httpx.Response":
        return self._request("GET", path)

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> "httpx.Response":
        import httpx

        try:
            response = self._http.request(method, path, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ApiError(
                f"the API at {self.url} cannot be reached ({error}); is it running there? "
                "(--api-url or EXPORTER_PUBLIC_URL names another)"
            ) from error
        if response.status_code >= 400:
            raise ApiError(_problem(response), status=response.status_code)
        return response


def _problem(response: "httpx.Response") -> str:
    try:
        content = response.json()
        text = str(content.get("detail") or content["title"])
    except (ValueError, KeyError, AttributeError):
        text = f"the API answered {response.status_code} {response.reason_phrase}"
    if response.status_code == 401:
        text += "; pass a token as --token or EXPORTER_TOKEN (exporter token --user-id … makes one)"
    return text
