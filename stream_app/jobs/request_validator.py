"""Validates requests without the source database."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from stream_app.addresses import AddressRules
from stream_app.datasets.bundle_requests import check_bundle_request
from stream_app.datasets.caller import Caller
from stream_app.datasets.destinations import Destination, find_destination
from stream_app.datasets.encryption import check_encryption
from stream_app.datasets.format_choice import allowed_formats, check_format
from stream_app.datasets.models import Dataset
from stream_app.datasets.registry import Datasets
from stream_app.datasets.rights import check_rows, find_dataset
from stream_app.exports.files.passwords import FilePasswords
from stream_app.exports.formats.registry import FORMATS, MISSING
from stream_app.jobs.new_job import NewJob, new_job
from stream_app.settings import Settings
from streaming_exporter.errors import Rejected
from streaming_exporter.events import Event, ExportRequest

ANY_ADDRESS = AddressRules()
"""Rules that allow mails to all domains and webhooks to all public hosts."""


@dataclass(frozen=True, slots=True)
class RequestValidator:
    """Validates requests without the source database, and builds jobs from them.

    Attributes:
        formats: names of the formats.
        datasets: the datasets by name.
        addressing: where mails, chat messages and webhooks can go.
        destinations: returns the destinations by name.
        has_passwords: returns whether the service has a good secret for the passwords of zip archives.
    """

    formats: Collection[str]
    datasets: Mapping[str, Dataset]
    addressing: AddressRules = ANY_ADDRESS
    has_passwords: Callable[[], bool] = lambda: False
    destinations: Callable[[], Mapping[str, Destination]] = dict

    @classmethod
    def of(cls, settings: Settings, datasets: Datasets) -> Self:
        """Return the validator with all formats, and with the rules of the settings."""
        return cls(
            FORMATS,
            datasets,
            AddressRules.of(settings),
            has_passwords=lambda: FilePasswords.of(settings) is not None,
            destinations=lambda: datasets.destinations,
        )

    def validate(self, data: dict[str, Any]) -> ExportRequest:
        """Return the request that ``data`` describes, with the addresses of its recipients in ASCII form.

        Its claims decide whether the user can ask for the dataset and use the scope.

        Columns and filters are checked later, against the table of the source database.

        Raises:
            Rejected: the request is invalid. The text names the field and what is allowed.
        """
        request = ExportRequest.parse(data)
        caller = Caller.of(request)
        dataset = find_dataset(self.datasets, request.export_type, caller)
        if request.format not in self.formats:
            reason = MISSING.get(request.format)
            raise Rejected(
                f"there is no format {request.format!r}" + (f": {reason}" if reason else ""),
                code="unknown_format",
                field="format",
                allowed=sorted(allowed_formats(dataset, self.formats)),
            )
        check_format(dataset, request.format, self.formats)
        check_rows(dataset, request.scope, caller)
        check_bundle_request(dataset, request)
        is_encrypted = request.encrypt is not None
        check_encryption(dataset, request.encrypt, has_passwords=is_encrypted and self.has_passwords())
        if request.webhook is not None:
            self.addressing.webhook(request.webhook)
        if request.destination is not None:
            find_destination(self.destinations(), request.destination, caller, request.export_type)
        if not request.recipients:
            return request
        return request.model_copy(update={"recipients": self.addressing.recipients(request.recipients)})

    def job(self, event: Event, *, now: datetime) -> NewJob:
        """Return the unadmitted job of a request event. The job of an invalid request has failed.

        Raises:
            Unreadable: the event lacks what a job's record needs.
        """
        try:
            return new_job(event, self.validate(event.data), now=now)
        except Rejected as error:
            return new_job(event, None, now=now).failed(error)
