"""Parses the responses of the HTTP API, for both clients."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlencode, urlsplit
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict

from streaming_exporter.errors import ApiError, DownloadError
from streaming_exporter.payloads import ExportRequest
from streaming_exporter.sent_fields import sent_fields
from streaming_exporter.url_text import hide_credentials

if TYPE_CHECKING:
    import httpx2

MAX_WAIT = 30
"""The longest time in seconds that the API lets a call wait for the end of a job."""

READS = frozenset({"GET", "HEAD"})
"""Methods of calls that change nothing."""

NOT_KNOWN = "it is not known whether it has done what the call asks for"

IDEMPOTENCY_KEY = "Idempotency-Key"

LINK = 307
"""The status of an answer with a link to a file."""

NO_SUCH_JOB = "not_found"
"""The code of the API's answer for a job that does not exist, or belongs to another user."""

UNFINISHED = ("pending", "processing")
"""The states in which a job has not ended."""


class JobFailure(BaseModel):
    """The reason why a job failed: a stable code, and a sentence for the user."""

    code: str
    message: str


class Job(BaseModel):
    """The state of a job. ``file_size`` is bytes; ``row_count`` grows while the job is processed.

    ``warnings`` has the numbers of values that are not in the files as they are in the database, by the
    kind of the change. A job that a schedule has made has its ``schedule_id``. ``expires_at`` is the time at
    which the files are removed.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    export_job_id: UUID
    status: str
    export_type: str
    format: str
    name: str | None = None
    schedule_id: UUID | None = None
    row_count: int | None = None
    estimated_rows: int | None = None
    file_size: int | None = None
    file_name: str | None = None
    file_count: int | None = None
    sha256: str | None = None
    warnings: dict[str, int] | None = None
    destination: str | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None
    expires_at: datetime | None = None
    error: JobFailure | None = None

    @property
    def finished(self) -> bool:
        """Whether the job has ended: completed, failed, cancelled or expired."""
        return self.status not in UNFINISHED


class JobFile(BaseModel):
    """One of the files of a job, with its number from 1. ``file_size`` is bytes."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    number: int
    file_name: str
    content_type: str
    row_count: int
    file_size: int
    sha256: str


def read_files(document: dict[str, Any], url: str) -> tuple[list[JobFile], str | None]:
    """Return the files of a page, and the cursor of the next page.

    Raises:
        ApiError: the document is no such page, so the server at ``url`` is not this API.
    """
    try:
        return [JobFile.model_validate(file) for file in document["files"]], document["next_cursor"]
    except (ValueError, KeyError, TypeError) as error:
        raise not_the_api(url) from error


def jobs_path(status: str | None, export_type: str | None, cursor: str) -> str:
    """Return the path of a page of jobs; ``cursor`` is empty for the first page."""
    given = {"limit": "100", "status": status, "export_type": export_type, "cursor": cursor}
    return f"/exports/jobs?{urlencode({key: value for key, value in given.items() if value})}"


def read_jobs(document: dict[str, Any], url: str) -> tuple[list[Job], str | None]:
    """Return the jobs of a page, and the cursor of the next page.

    Raises:
        ApiError: the document is no such page, so the server at ``url`` is not this API.
    """
    try:
        return [Job.model_validate(job) for job in document["jobs"]], document["next_cursor"]
    except (ValueError, KeyError, TypeError) as error:
        raise not_the_api(url) from error


def is_unknown_job(error: ApiError) -> bool:
    """Return whether the API has answered that there is no such job. A proxy's 404 has not that code."""
    return error.status == 404 and error.problem_code == NO_SUCH_JOB


def read_list(document: dict[str, Any], name: str, url: str) -> list[dict[str, Any]]:
    """Return the objects of a list that has no pages.

    Raises:
        ApiError: the document has no such list, so the server at ``url`` is not this API.
    """
    found = document.get(name)
    if not isinstance(found, list):
        raise not_the_api(url)
    return found


def read_password(document: dict[str, Any], url: str) -> str:
    """Return the password in a document.

    Raises:
        ApiError: the document has none, so the server at ``url`` is not this API.
    """
    password = document.get("password")
    if not isinstance(password, str):
        raise not_the_api(url)
    return password


def order_of(
    request: ExportRequest, idempotency_key: str | None = None, *, wait: int = 0
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the body and the headers of ``POST /exports/jobs``. Without a key the headers have a new one."""
    headers = key_headers(idempotency_key)
    if wait:
        headers["Prefer"] = f"wait={wait}"
    return {name: value for name, value in sent_fields(request).items() if name != "user_id"}, headers


def key_headers(idempotency_key: str | None) -> dict[str, str]:
    """Return the header with the key, or with a new one: after an answer that was lost it has to be known."""
    return {IDEMPOTENCY_KEY: str(uuid4()) if idempotency_key is None else idempotency_key}


def call_timeout(seconds: float) -> "httpx2.Timeout":
    """Return the time limit of a call that waits up to ``seconds`` for the end of a job."""
    import httpx2

    return httpx2.Timeout(30 + seconds, connect=5)


def file_path(job_id: UUID, number: int | None) -> str:
    """Return the path of the download of a file, or of the only file."""
    return f"/exports/jobs/{job_id}/" + ("download" if number is None else f"files/{number}")


def bytes_to_skip(response: "httpx2.Response", start: int) -> int:
    """Return how many bytes of a file come before byte ``start``: 0 if the store has left them out.

    Raises:
        DownloadError: the store did not answer with the file.
    """
    if start and response.status_code == 206:
        if response.headers.get("content-range", "").startswith(f"bytes {start}-"):
            return 0
    elif response.status_code == 200:
        return start
    raise DownloadError(f"the object store answered {response.status_code}; try again")


def read_document(response: "httpx2.Response", url: str, *, can_be_empty: bool = False) -> dict[str, Any]:
    """Return the JSON object of an answer; ``{}`` where the answer can be empty and has no content (204).

    Raises:
        ApiError: the answer is no JSON object, so the server at ``url`` is not this API.
    """
    if response.status_code == 204 and can_be_empty:
        return {}
    try:
        content = response.json()
    except ValueError as error:
        raise not_the_api(url, response.status_code) from error
    if not isinstance(content, dict):
        raise not_the_api(url, response.status_code)
    return content


def read_object(response: "httpx2.Response", field: str, url: str) -> dict[str, Any]:
    """Return the JSON object of an answer that always has ``field``.

    Raises:
        ApiError: the answer is no such object, so the server at ``url`` is not this API.
    """
    document = read_document(response, url)
    if field not in document:
        raise not_the_api(url, response.status_code)
    return document


def read_job_id(response: "httpx2.Response", url: str) -> UUID:
    """Return the id of the job that a call has made, or that it has found by its idempotency key.

    Raises:
        ApiError: the answer has no such id, so the server at ``url`` is not this API. The error has the key,
            because the call can have reached the API.
    """
    try:
        return UUID(str(read_document(response, url)["export_job_id"]))
    except (KeyError, ValueError, ApiError) as error:
        failure = not_the_api(url, response.status_code)
        failure.idempotency_key = response.request.headers.get(IDEMPOTENCY_KEY)
        raise failure from error


def read_link(response: "httpx2.Response", url: str) -> str:
    """Return the link to a file in an answer.

    Raises:
        ApiError: it has none, so the server at ``url`` is not this API. A proxy that sends callers to another
            address of the API has the path of the call in its answer.
    """
    link = str(response.headers.get("location", ""))
    path = _split(link).path
    if response.status_code != LINK or not path or path == response.request.url.path:
        raise _not_the_api(response, url)
    return link


def read_job(document: dict[str, Any], url: str) -> Job:
    """Return the job of a document.

    Raises:
        ApiError: the document is no job, so the server at ``url`` is not this API.
    """
    try:
        return Job.model_validate(document)
    except ValueError as error:
        raise not_the_api(url) from error


def raise_for_stream(response: "httpx2.Response", url: str) -> None:
    """Raise :class:`ApiError` for an answer that is no stream of events and no end of one."""
    raise_for_problem(response, url)
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    has_ended = response.status_code == 204 and "last-event-id" in response.request.headers
    if not has_ended and (response.status_code != 200 or kind != "text/event-stream"):
        raise _not_the_api(response, url)


def raise_for_problem(
    response: "httpx2.Response", url: str, method: str = "GET", *, is_link: bool = False
) -> None:
    """Raise :class:`ApiError` for an answer from 300 on; from 400 on with the text of its problem document.

    The API redirects only calls for a link (``is_link``). Other redirects come from a proxy or a sign-in,
    which has not sent the call to the API. So does a 404 without a code: all of the API have one.
    """
    if response.status_code < 300 or (is_link and response.status_code < 400):
        return
    if response.status_code < 400:
        raise _not_the_api(response, url)
    code = None
    try:
        content = response.json()
        text = str(content.get("detail") or content["title"])
        code = str(content["code"]) if "code" in content else None
    except (ValueError, KeyError, AttributeError):
        text = f"the API answered {response.status_code} {response.reason_phrase}"
    is_foreign = code is None and response.status_code == 404
    if is_foreign:
        text = f"{not_the_api(url)}: {text}"
    if response.status_code == 401:
        text += "; pass a token as --token or EXPORTER_TOKEN (exporter token --user-id … makes one)"
    is_in_doubt = code == "in_doubt"
    # Errors of the API have a code. A proxy sends others, also after it has sent the call to the API.
    is_of_proxy = code is None and (response.status_code >= 500 or response.status_code == 408)
    if is_of_proxy and method not in READS:
        is_in_doubt = True
        text += f"; {NOT_KNOWN}"
    raise ApiError(
        text,
        status=response.status_code,
        problem_code=code,
        retry_after=read_retry_after(response.headers.get("retry-after")),
        is_in_doubt=is_in_doubt,
        is_foreign=is_foreign,
    )


def read_retry_after(value: str | None) -> float | None:
    """Return the seconds of a header ``Retry-After``, which is a number or a time; ``None`` for others."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdecimal():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (zoned - datetime.now(UTC)).total_seconds())


def not_the_api(url: str, status: int = 200) -> ApiError:
    """Return the error for a server that answers with ``status`` but is not this API."""
    text = f"{hide_credentials(url)} does not answer as the exporter's API does"
    return ApiError(text, status=status, is_foreign=True)


def _not_the_api(response: "httpx2.Response", url: str) -> ApiError:
    """Return the error for an answer that is not of this API. It has the server to which the answer leads."""
    error = not_the_api(url, response.status_code)
    if not response.has_redirect_location:
        return error
    leads_to = _split(response.headers["location"])
    server = f" to {leads_to.scheme}://{leads_to.netloc.rpartition('@')[2]}" if leads_to.netloc else ""
    return ApiError(f"{error}: it redirects the call{server}", status=response.status_code, is_foreign=True)


def _split(link: str) -> SplitResult:
    try:
        return urlsplit(link)
    except ValueError:  # no URL
        return SplitResult("", "", "", "", "")


def unreachable(url: str, error: Exception, method: str = "GET") -> ApiError:
    """Return the error for a call without an answer. It has no status.

    If the call changes something, and it is not certain that the API did not get it, the error says so.
    """
    import httpx2

    unsent = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError,
        httpx2.LocalProtocolError, httpx2.UnsupportedProtocol, httpx2.InvalidURL)  # fmt: skip
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx2.LocalProtocolError):  # its text has the header, which can be a secret
        reason = "the call has a header that HTTP does not allow"
    if method not in READS and not isinstance(error, unsent):
        return ApiError(
            f"the API at {hide_credentials(url)} was called, and its answer was lost ({reason}); {NOT_KNOWN}",
            is_in_doubt=True,
        )
    return ApiError(
        f"the API at {hide_credentials(url)} cannot be reached ({reason}); check that it runs there, "
        "or give the right URL (--api-url or EXPORTER_PUBLIC_URL)"
    )
