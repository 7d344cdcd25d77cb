"""What a caller can see of datasets: which datasets, which columns, and the rows of a scope. Pure.

A dataset, or a column, that is not for the caller does not exist for them: errors do not name it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile

from stream_app.datasets.bundles import SUBJECT_ACCESS, Bundle, members_of
from stream_app.datasets.caller import ALL_DATA, ROLES, Caller
from stream_app.datasets.models import Dataset, Scope
from streaming_exporter.errors import Rejected

OWN = "own"
"""The scope of requests that name none: the rows of the caller."""

ALL = "all"
"""The scope of every row. The API and the schedules check who can use it; in events it is trusted."""


@dataclass(frozen=True, slots=True)
class RowChoice:
    """The rows of a scope: those whose ``column``, as text, is one of ``values``."""

    column: str
    values: tuple[str, ...]


def find_dataset(datasets: Mapping[str, Dataset], name: str, caller: Caller) -> Dataset:
    """Return the dataset or bundle ``name`` if it exists for the caller.

    Raises:
        Rejected: there is no such dataset, or it is not for the caller; both have the same text. Or a bundle
            has a dataset that is not for the caller, which the text does not name.
    """
    dataset = datasets.get(name)
    if dataset is None or not caller.has_any(dataset.roles):
        raise unknown_dataset(name, [key for key, item in datasets.items() if exists_for(item, caller)])
    _require_members(dataset, caller)
    return dataset


def exists_for(dataset: Dataset, caller: Caller) -> bool:
    """Return whether the dataset exists for the caller; a bundle does if all its datasets do, too."""
    return caller.has_any(dataset.roles) and all(
        caller.has_any(member.roles) for member in members_of(dataset)
    )


def _require_members(dataset: Dataset, caller: Caller) -> None:
    """Return if each dataset of a bundle exists for the caller.

    Raises:
        Rejected: one does not. The text does not name it.
    """
    if not exists_for(dataset, caller):
        raise Rejected(
            f"bundle {dataset.name!r} has a dataset that you cannot export, so the bundle cannot be exported "
            "either; ask the operators for the role, or request the datasets that you can see",
            code="bundle_not_allowed",
            field="export_type",
        )


def unknown_dataset(name: str, allowed: list[str] | None = None) -> Rejected:
    """Return the error for a dataset that does not exist for the caller; ``allowed`` are those that do."""
    return Rejected(
        f"there is no dataset {name!r}",
        code="unknown_dataset",
        field="export_type",
        allowed=None if allowed is None else sorted(allowed),
    )


def hidden_columns(dataset: Dataset, caller: Caller) -> frozenset[str]:
    """Return the columns that do not exist for the caller."""
    settings = dataset.column_settings.items()
    return frozenset(name for name, column in settings if not caller.has_any(column.roles))


def masked_columns(dataset: Dataset, caller: Caller) -> Mapping[str, str]:
    """Return the masks of the columns that the caller sees masked, by the name of the column."""
    return {
        name: column.mask
        for name, column in dataset.column_settings.items()
        if column.mask is not None
        and caller.has_any(column.roles)
        and not caller.has_any(column.unmasked_for)
    }


def visible_dataset(dataset: Dataset, caller: Caller) -> Dataset:
    """Return the dataset as the caller sees it.

    Its rows are not ordered by a column whose values the caller cannot see, nor by the columns after it,
    because the order of the rows would reveal them. Such a column is not used for windows either.

    Raises:
        Rejected: the dataset is not for the caller.
    """
    if not caller.has_any(dataset.roles):
        raise unknown_dataset(dataset.name)
    if isinstance(dataset, Bundle):
        _require_members(dataset, caller)
        members = tuple(visible_dataset(member, caller) for member in dataset.members)
        return dataset.model_copy(update={"members": members})
    hidden = hidden_columns(dataset, caller)
    closed = hidden.union(masked_columns(dataset, caller))
    if not closed:
        return dataset
    order = tuple(takewhile(lambda name: name not in closed, dataset.order or ()))
    columns = None if dataset.columns is None else tuple(n for n in dataset.columns if n not in hidden)
    return dataset.model_copy(
        update={
            "order": order or None,
            "time": None if dataset.time in closed else dataset.time,
            "deleted_at": None if dataset.deleted_at in closed else dataset.deleted_at,
            "columns": columns,
            "column_settings": {n: item for n, item in dataset.column_settings.items() if n not in hidden},
        }
    )


def row_choice(dataset: Dataset, name: str, caller: Caller) -> RowChoice | None:
    """Return the rows of the scope ``name``; ``None`` for every row.

    Raises:
        Rejected: there is no such scope, or the caller lacks the role or the claim for it.
    """
    if name == ALL:
        return None
    scope = _scopes(dataset).get(name)
    if scope is None:
        raise _no_scope(dataset, name, caller)
    if not caller.has_any(scope.roles):
        raise Rejected(
            f"scope {name} needs one of the roles {', '.join(scope.roles or ())}",
            code="scope_not_allowed",
            field="scope",
        )
    return RowChoice(scope.column, claim_values(caller, scope.claim, f"scope {name}", field="scope"))


def check_rows(dataset: Dataset, name: str, caller: Caller) -> None:
    """Check that the caller can use the scope ``name`` of a dataset, or of each dataset of a bundle.

    Raises:
        Rejected: as :func:`row_choice`. With a bundle, the text names the dataset.
    """
    if not isinstance(dataset, Bundle):
        row_choice(dataset, name, caller)
        return
    if dataset.kind == SUBJECT_ACCESS and name != OWN:
        raise Rejected(
            f"bundle {dataset.name!r} has the data about one person, so it has no scope {name!r}",
            code="unknown_scope",
            field="scope",
            allowed=[OWN],
        )
    for member in dataset.members:
        try:
            row_choice(member, name, caller)
        except Rejected as error:
            raise of_member(dataset, member, error) from error


def of_member(bundle: Bundle, member: Dataset, error: Rejected) -> Rejected:
    """Return the error of a dataset of a bundle, with the dataset's name, which is visible to the caller.

    The field of a filter is that of the request for the bundle, such as ``filters.ledger.kind``.
    """
    text, field = str(error), error.field
    if field is not None:
        text = text.removeprefix(f"{field}: ")
        first, dot, rest = field.partition(".")
        if first == "filters":
            field = f"filters.{member.name}{dot}{rest}"
    return Rejected(
        f"dataset {member.name!r} of bundle {bundle.name!r}: {text}", code=error.code, field=field
    )


def claim_values(caller: Caller, claim: str, user: str, *, field: str | None = None) -> tuple[str, ...]:
    """Return the values of a claim of the caller: at least one.

    Args:
        caller: the caller.
        claim: the name of the claim.
        user: what needs the claim, for the error.
        field: the field of the request that needs it.

    Raises:
        Rejected: the caller has no such claim, or it is empty.
    """
    values = caller.values_of(claim)
    if not values:
        raise Rejected(
            f"{user} needs the claim {claim!r} of the user, as a text or a list of texts, and it is missing",
            code="missing_claim",
            field=field,
        )
    return values


def usable_scopes(dataset: Dataset, caller: Caller) -> list[str]:
    """Return the names of the scopes for which the caller has role and claim, without :data:`ALL`.

    A bundle has the scopes that each of its datasets has.
    """
    if isinstance(dataset, Bundle):
        first, *others = (usable_scopes(member, caller) for member in dataset.members)
        common = [name for name in first if all(name in names for names in others)]
        return [name for name in common if dataset.kind != SUBJECT_ACCESS or name == OWN]
    return [
        name
        for name, scope in _scopes(dataset).items()
        if caller.has_any(scope.roles) and caller.values_of(scope.claim)
    ]


def named_roles(dataset: Dataset) -> frozenset[str]:
    """Return the roles that the rights to the dataset, or to a bundle's datasets, depend on."""
    if isinstance(dataset, Bundle):
        own = frozenset({*dataset.roles, ALL_DATA} if dataset.roles else ())
        return own.union(*map(named_roles, dataset.members))
    groups = (
        dataset.roles or (),
        *(scope.roles or () for scope in dataset.scopes.values()),
        *(column.roles or () for column in dataset.column_settings.values()),
        *(column.unmasked_for for column in dataset.column_settings.values()),
    )
    named = frozenset(role for group in groups for role in group)
    has_mask = any(column.mask is not None for column in dataset.column_settings.values())
    return named | {ALL_DATA} if named or has_mask else named


def named_claims(dataset: Dataset) -> frozenset[str]:
    """Return the claims that the rights to the dataset depend on, without the user's id and the roles."""
    if isinstance(dataset, Bundle):
        return frozenset().union(*map(named_claims, dataset.members))
    return frozenset(_claims(dataset)) - {"sub", ROLES}


def has_own_rows(dataset: Dataset) -> bool:
    """Return whether rows of the dataset, or of each dataset of a bundle, belong to users."""
    if isinstance(dataset, Bundle):
        return all(map(has_own_rows, dataset.members))
    return OWN in _scopes(dataset)


def scope_columns(dataset: Dataset) -> tuple[str, ...]:
    """Return the columns that scopes compare with claims."""
    return tuple(dict.fromkeys(scope.column for scope in _scopes(dataset).values()))


def _claims(dataset: Dataset) -> Iterator[str]:
    yield from (scope.claim for scope in dataset.scopes.values())
    yield from (value.claim for value in dataset.session.values())


def _scopes(dataset: Dataset) -> Mapping[str, Scope]:
    """Return the scopes by name. ``own`` compares the owner column, unless the file defines it."""
    if dataset.owner is None or OWN in dataset.scopes:
        return dataset.scopes
    return {OWN: Scope(column=dataset.owner), **dataset.scopes}


def _no_scope(dataset: Dataset, name: str, caller: Caller) -> Rejected:
    allowed = [*usable_scopes(dataset, caller), ALL]
    if name == OWN:
        return Rejected(
            f"dataset {dataset.name!r} has no owner column, so no user has rows of their own",
            field="scope",
            allowed=allowed,
        )
    return Rejected(
        f"dataset {dataset.name!r} has no scope {name!r}",
        code="unknown_scope",
        field="scope",
        allowed=allowed,
    )
