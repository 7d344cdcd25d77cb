"""What can go wrong on the asking side; each text says what to do next."""

from stream_app.errors import ExporterError, Retryable


class PublishError(Retryable):
    """Kafka did not take an event in time; it may be published again, under the same id."""

    code = "kafka_unavailable"


class UsageError(ExporterError):
    """The command line makes no sense as it stands."""

    code = "usage"


class ApiError(ExporterError):
    """The API could not be reached, or answered with a problem."""

    code = "api_error"

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class JobEnded(ExporterError):
    """The job ended without a file."""

    code = "job_ended"


class DownloadError(ExporterError):
    """The file could not be fetched, or is not the one that the service wrote."""

    code = "download_failed"
