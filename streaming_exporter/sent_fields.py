"""The fields of a request as JSON, for the events and for the API. Does no I/O."""

from typing import Any

from pydantic import ValidationError

from streaming_exporter.errors import Rejected
from streaming_exporter.payloads import RequestIdentity, first_problem


def sent_fields(request: RequestIdentity) -> dict[str, Any]:
    """Return the fields that were given, and those that have changed since, such as ``filters``.

    They are validated again, because lists and objects can be changed after the request was made.

    Raises:
        Rejected: a field has become invalid. The text has the field, what is wrong and what is allowed.
    """
    kind = type(request)
    given = {
        name: getattr(request, name)
        for name, field in kind.model_fields.items()
        if name in request.model_fields_set
        or getattr(request, name) != field.get_default(call_default_factory=True, validated_data={})
    }
    try:
        return kind.model_validate(given).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        name, message = first_problem(error)
        raise Rejected(message, field=name) from error
