"""Requests for bundles: what they can have, and the request for each dataset of a bundle. Pure."""

from collections.abc import Mapping
from typing import Any

from stream_app.datasets.bundles import Bundle
from stream_app.datasets.caller import Caller
from stream_app.datasets.models import Dataset
from stream_app.datasets.rights import hidden_columns
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest


def filters_by_dataset(bundle: Bundle, filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filters of a request for a bundle, by dataset: ``ledger.kind`` is ``kind`` of ``ledger``.

    Names of datasets have no dot. What names no dataset of the bundle stays as it is.

    Raises:
        Rejected: a column is named in both ways.
    """
    names = {member.name for member in bundle.members}
    found = {
        key: value for key, value in filters.items() if key.partition(".")[0] not in names or key in names
    }
    for key, value in filters.items():
        if key in found:
            continue
        name, _, column = key.partition(".")
        own = found.get(name, {})
        if not isinstance(own, Mapping) or column in own:
            raise Rejected("the column is named twice; remove one of the filters", field=f"filters.{key}")
        found[name] = {**own, column: value}
    return found


def check_bundle_request(dataset: Dataset, request: ExportRequest) -> None:
    """Check what a request for a bundle has. A request for a dataset passes.

    ``dataset`` is the entry of the datasets file: columns that the caller does not see are not named.

    Raises:
        Rejected: it has fields that a bundle does not have, filters of another form than
            ``{dataset: {column: …}}``, or a parameter that no dataset of the bundle has.
    """
    if not isinstance(dataset, Bundle):
        return
    if request.columns is not None:
        raise _not_possible(dataset, "columns", "each of its datasets has all its columns; leave columns out")
    if request.split is not None:
        raise _not_possible(dataset, "split", "it is one file; leave split out, or request its datasets")
    members = {member.name: member for member in dataset.members}
    for name, filters in filters_by_dataset(dataset, request.filters).items():
        if name not in members:
            raise Rejected(
                f"bundle {dataset.name!r} has no dataset {name!r}; write the filters of a bundle as "
                '{"dataset": {"column": value}}',
                code="unknown_dataset",
                field=f"filters.{name}",
                allowed=list(members),
            )
        if not isinstance(filters, Mapping):
            raise Rejected(
                'the filters of a dataset of a bundle must be an object, such as {"column": value}',
                field=f"filters.{name}",
            )
        hidden = hidden_columns(members[name], Caller.of(request))
        for column in filters:
            if column in dataset.filters.get(name, {}) and column not in hidden:
                raise Rejected(
                    "the bundle limits this column already; remove the filter",
                    code="filter_of_bundle",
                    field=f"filters.{name}.{column}",
                )
    known = sorted({name for member in dataset.members for name in member.parameters})
    for name in request.parameters:
        if name not in known:
            raise Rejected(
                f"no dataset of bundle {dataset.name!r} has a parameter {name!r}",
                code="unknown_parameter",
                field=f"parameters.{name}",
                allowed=known,
            )


def member_request(bundle: Bundle, member: Dataset, request: ExportRequest) -> ExportRequest:
    """Return the request for one dataset of a bundle.

    It has the filters of the bundle and of the request for this dataset, and its parameters.
    """
    given = filters_by_dataset(bundle, request.filters).get(member.name, {})
    own = bundle.filters.get(member.name, {})
    filters: dict[str, Any] = {**own, **given, **own}
    parameters = {name: value for name, value in request.parameters.items() if name in member.parameters}
    return request.model_copy(
        update={"export_type": member.name, "filters": filters, "parameters": parameters}
    )


def _not_possible(bundle: Bundle, field: str, why: str) -> Rejected:
    return Rejected(f"bundle {bundle.name!r} cannot have it: {why}", code="not_for_bundles", field=field)
