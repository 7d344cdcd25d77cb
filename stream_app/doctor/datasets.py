"""Checks that there are datasets, and that they match their tables."""

from collections.abc import AsyncIterator, Iterator

from stream_app.datasets.faults import dotted
from stream_app.datasets.file import DatasetsFileError, load_datasets
from stream_app.datasets.missing_datasets import missing_datasets
from stream_app.datasets.template_losses import template_losses
from stream_app.destinations.secrets import missing_secrets
from stream_app.doctor.datasets_file.check import check_datasets_file
from stream_app.doctor.findings import Finding, FindingFactory, State
from stream_app.settings import Settings

AREA = FindingFactory("datasets")


def check_datasets(settings: Settings) -> Iterator[Finding]:
    """Yield a problem if the datasets file cannot be used or has no dataset, and what templates lose."""
    try:
        content = load_datasets(settings.datasets_file)
    except DatasetsFileError as error:
        yield AREA.problem("file", "unusable_datasets_file", reason=str(error))
        return
    reason = missing_datasets(content.datasets, settings.datasets_file)
    names = ", ".join(content.requestable)
    yield AREA.problem_if(reason is not None, "file", names, "no_datasets", reason=reason or "")
    for dataset, parts in template_losses(content.datasets.values()):
        place = dotted(("datasets", dataset.name, "template"))
        yield AREA.warning(place, "template_parts_lost", parts="; ".join(parts))


def check_destinations(settings: Settings) -> Iterator[Finding]:
    """Yield a problem for each missing secret of a destination, and else how to test them."""
    try:
        destinations = load_datasets(settings.datasets_file).destinations
    except DatasetsFileError:
        return
    area = FindingFactory("destinations")
    faults = [
        (f"{name}.{key}", text) for name, item in destinations.items() for key, text in missing_secrets(item)
    ]
    for place, text in faults:
        yield area.problem(place, "no_destination_secret", reason=text)
    if destinations and not faults:
        names = ", ".join(destinations)
        yield area.ok("secrets", f"{names}; `exporter destinations test NAME` writes to one")


async def check_tables(settings: Settings) -> AsyncIterator[Finding]:
    """Compare the datasets with their tables: a finding for each problem, and one about all warnings.

    What ``exporter datasets check`` says about the file, templates and sources is left to other checks.
    """
    remarks = await check_datasets_file(settings)
    tables = [
        remark
        for remark in remarks
        if remark.fault.place[:1] in (("datasets",), ("bundles",))
        and not (remark.state is State.WARNING and remark.fault.place[2:] == ("template",))
    ]
    problems = [remark for remark in tables if remark.state is State.PROBLEM]
    for remark in problems:
        yield AREA.problem(dotted(remark.fault.place), "unfit_dataset", reason=str(remark.fault.text))
    warnings = sum(remark.state is State.WARNING for remark in tables)
    if warnings:
        yield AREA.warning("tables", "dataset_warnings", count=warnings)
    elif not any(remark.state is State.PROBLEM for remark in remarks):
        yield AREA.ok("tables", "all datasets match their tables")
