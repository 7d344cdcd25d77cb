"""The values of labels of metrics. Their number is bounded: all other names become :data:`OTHER`."""

from collections.abc import Collection, Iterator

from streaming_exporter.errors import Retryable

OTHER = "other"
"""Label of a dataset or format that is not known here."""

_known_labels: dict[str, frozenset[str]] = {"dataset": frozenset(), "format": frozenset()}

MAX_CODES = 100
"""Limit of the codes of errors that are labels; all others are :data:`OTHER`."""

_codes: set[str] = set()

_SERVICE_FAILURE_CODES = frozenset({"internal_error", "unknown_request", "worker_lost"})
"""Codes of failures of the service that no class of errors has."""


def set_known_labels(*, datasets: Collection[str], formats: Collection[str]) -> None:
    """Set the names that can be labels: those of the registered datasets and formats."""
    _known_labels["dataset"], _known_labels["format"] = frozenset(datasets), frozenset(formats)


def values_of_label(label: str) -> list[str]:
    """Return the values that the label ``dataset`` or ``format`` can have, the one of unknown names first."""
    return [OTHER, *sorted(_known_labels[label])]


def job_labels(dataset: str, format_: str) -> dict[str, str]:
    """Return the labels of a job. An unknown name becomes :data:`OTHER`."""
    given = {"dataset": dataset, "format": format_}
    return {label: name if name in _known_labels[label] else OTHER for label, name in given.items()}


def is_failure_of_service(code: str) -> bool:
    """Return whether no change of the request can avoid a failure with this code.

    That is so for all temporary faults, whose attempts have been used up.
    """
    return code in _SERVICE_FAILURE_CODES or any(code == kind.code for kind in _family(Retryable))


def _family(kind: type[Retryable]) -> Iterator[type[Retryable]]:
    """Yield the class and all its subclasses."""
    yield kind
    for narrower in kind.__subclasses__():
        yield from _family(narrower)


def code_label(code: str) -> str:
    """Return the code of an error as a label. Plug-ins have codes of their own, so the number is limited."""
    if code not in _codes:
        if len(_codes) >= MAX_CODES:
            return OTHER
        _codes.add(code)
    return code
