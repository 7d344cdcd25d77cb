"""The part of the service whose settings and rights ``exporter doctor`` checks."""

from enum import StrEnum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from stream_app.settings import Settings


class Part(StrEnum):
    """A part of the service, which has settings, secrets and rights of its own."""

    ALL = "all"
    WORKER = "worker"
    API = "api"

    @classmethod
    def of(cls, settings: "Settings") -> Self:
        """Return the part that these settings belong to: only workers have a file of readiness."""
        return cls.ALL if settings.ready_file is None else cls.WORKER

    @property
    def reads_tokens(self) -> bool:
        """Whether the part verifies the tokens of users."""
        return self is not Part.WORKER

    @property
    def writes_files(self) -> bool:
        """Whether the part writes the files of exports, and removes them."""
        return self is not Part.API
