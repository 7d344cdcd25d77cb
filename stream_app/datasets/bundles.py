"""Bundles: several datasets under one name, which one request exports together. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, time
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from stream_app.datasets.models import Dataset, Entry, Identifier, Label, Labels, Name, Role

SUBJECT_ACCESS = "subject_access"
"""The kind of a bundle that gives a person all data about them."""

MAX_MEMBERS = 200
"""Datasets that one bundle can have."""


class BundleSettings(Entry):
    """Several datasets that one request exports together.

    Attributes:
        name: its name in the file, which no dataset has.
        datasets: the names of its datasets, in the order of the files.
        kind: ``subject_access``: all data about one person. Without ``datasets`` it has every dataset whose
            rows belong to users.
        label: the name for people.
        labels: names in other languages.
        description: what the bundle is for.
        roles: roles that can ask for the bundle; for others it does not exist. Without roles everybody can
            who can ask for each of its datasets.
        filters: filters of single datasets, by the name of the dataset. They hold besides those of a request.
    """

    name: Name
    datasets: tuple[Name, ...] | None = Field(None, min_length=1, max_length=MAX_MEMBERS)
    kind: Literal["subject_access"] | None = None
    label: Label | None = None
    labels: Labels = Field(default_factory=dict)
    description: str = ""
    roles: tuple[Role, ...] | None = Field(None, min_length=1)
    filters: Mapping[Name, Mapping[Identifier, Any]] = Field(default_factory=dict)

    @field_validator("filters")
    @classmethod
    def _as_in_requests(cls, value: Any) -> Any:
        """Write dates and times as requests do: as texts. TOML has types of its own for them."""
        if isinstance(value, Mapping):
            return {name: cls._as_in_requests(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [cls._as_in_requests(item) for item in value]
        return value.isoformat() if isinstance(value, date | time) else value

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.datasets is None and self.kind is None:
            raise ValueError('it needs datasets, such as ["orders", "customers"], or kind = "subject_access"')
        names = self.datasets or ()
        if repeated := [name for number, name in enumerate(names) if name in names[:number]]:
            raise ValueError(f"datasets: {repeated[0]!r} is repeated; name each dataset once")
        return self


class Bundle(Dataset):
    """A bundle with its datasets. Wherever the name of a dataset is allowed, it stands for all of them.

    What it has of a dataset is what holds for the file of all of them: ``formats`` that each of them allows,
    and ``encrypt`` if one of them requires it. Rows, columns, owners and times are those of its members.

    Attributes:
        kind: ``subject_access``, or ``None``.
        members: its datasets.
        filters: filters of single datasets, by the name of the dataset.
    """

    kind: Literal["subject_access"] | None = None
    members: tuple[Dataset, ...] = Field(min_length=1)
    filters: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        return self

    @classmethod
    def of(cls, settings: BundleSettings, members: Iterable[Dataset]) -> Self:
        """Return the bundle of ``members``, which the datasets file describes by ``settings``."""
        found = tuple(members)
        return cls(
            name=settings.name,
            kind=settings.kind,
            label=settings.label,
            labels=settings.labels,
            description=settings.description,
            roles=settings.roles,
            members=found,
            filters=settings.filters,
            formats=common_formats(found),
            encrypt="required" if any(member.encrypt == "required" for member in found) else None,
        )


def common_formats(members: Iterable[Dataset]) -> tuple[str, ...] | None:
    """Return the formats that each of ``members`` allows; ``None`` for all formats. It can be empty."""
    common: tuple[str, ...] | None = None
    for member in members:
        if member.formats is not None:
            allowed = member.formats if common is None else common
            common = tuple(name for name in allowed if name in member.formats)
    return common


def members_of(dataset: Dataset) -> tuple[Dataset, ...]:
    """Return the datasets of a bundle; for a dataset that alone."""
    return dataset.members if isinstance(dataset, Bundle) else (dataset,)


def sources_of(dataset: Dataset) -> frozenset[str]:
    """Return the names of the sources of a dataset or of a bundle's datasets."""
    return frozenset(member.source for member in members_of(dataset))


def has_windows(dataset: Dataset) -> bool:
    """Return whether the rows can be limited to a window: those of at least one dataset of a bundle."""
    return any(member.time is not None for member in members_of(dataset))


def bundles_with(name: str, datasets: Mapping[str, Dataset]) -> Iterator[str]:
    """Yield the names of the bundles that have the dataset ``name``."""
    for key, item in datasets.items():
        if isinstance(item, Bundle) and any(member.name == name for member in item.members):
            yield key
