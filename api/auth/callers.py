"""The callers of datasets, from tokens: the roles and claims that the rights to a dataset depend on. Pure.

They are recorded with the job, so nothing else of a token is kept.
"""

from collections.abc import Mapping
from typing import Any

from api.auth.authenticator import User
from api.auth.token_claims import at_path, is_storable
from stream_app.datasets.caller import ROLES, Caller
from stream_app.datasets.destinations import Destination, roles_of
from stream_app.datasets.models import Dataset
from stream_app.datasets.rights import exists_for, named_claims, named_roles
from streaming_exporter.payloads import MAX_CLAIM_LENGTH, MAX_CLAIM_VALUES

RequestClaims = dict[str, str | list[str]]
"""The field ``claims`` of a request."""


def claims_for(user: User, dataset: Dataset | None, destination: Destination | None = None) -> RequestClaims:
    """Return the claims of ``user`` for a request for ``dataset``, under the names of the datasets file.

    They have the roles that the rights to ``destination`` depend on, too.

    A claim that the token lacks, or that is no text, number or list of these, is left out. So is one that is
    too long for a request: to cut it would leave out rows without a word.
    """
    if dataset is None:
        return {}
    found: RequestClaims = {}
    if (names := named_claims(dataset)) and (token := user.claims):
        found = {
            name: value
            for name in sorted(names)
            if (value := _request_value(at_path(token, name))) is not None
        }
    if roles := sorted(user.roles & (named_roles(dataset) | roles_of(destination))):
        found[ROLES] = roles
    return found


def caller_for(user: User, dataset: Dataset | None) -> Caller:
    """Return the caller that a request of ``user`` for ``dataset`` has."""
    return Caller.of_claims(user.id, claims_for(user, dataset))


def can_see(user: User, dataset: Dataset) -> bool:
    """Return whether the dataset or bundle exists for ``user``."""
    return exists_for(dataset, Caller(user.id, user.roles))


def kept_claims(known: Mapping[str, Any] | None, now: RequestClaims) -> RequestClaims | None:
    """Return what of the recorded claims ``known`` is still in the claims ``now`` of the same user."""
    kept: RequestClaims = {}
    for name, value in (known or {}).items():
        allowed = _list(now.get(name, []))
        left = [item for item in _list(value) if item in allowed]
        if left:
            kept[name] = left if isinstance(value, list) else left[0]
    return kept or None


def _request_value(value: Any) -> str | list[str] | None:
    if isinstance(value, list):
        texts = [_text(item) for item in value]
        fits = 0 < len(texts) <= MAX_CLAIM_VALUES
        return [text for text in texts if text is not None] if fits and None not in texts else None
    return _text(value)


def _text(value: Any) -> str | None:
    """Return a text, a number or a truth value as text; ``None`` for everything else."""
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, int):
        value = str(value)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_CLAIM_LENGTH or not is_storable(value):
        return None
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
