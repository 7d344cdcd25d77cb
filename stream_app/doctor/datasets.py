"""Check that there are datasets."""

from collections.abc import Iterator

from stream_app.datasets.file import DatasetsFileError, load_datasets
from stream_app.datasets.format_choice import unknown_formats
from stream_app.datasets.presence import ADVICE, missing_datasets
from stream_app.doctor.findings import Finding, FindingFactory
from stream_app.exports.formats.registry import FORMATS
from stream_app.settings import Settings

AREA = FindingFactory("datasets")


def check_datasets(settings: Settings) -> Iterator[Finding]:
    """Yield a problem if the datasets file cannot be used or has no dataset."""
    try:
        datasets = load_datasets(settings.datasets_file).datasets
    except DatasetsFileError as error:
        yield AREA.problem("file", str(error), "correct the file; workers and the API do not start with it")
        return
    for dataset in datasets.values():
        if unknown := unknown_formats(dataset, FORMATS):
            yield AREA.warning(
                f"formats of {dataset.name}",
                f"there is no format {', '.join(unknown)}",
                f"correct the names ({', '.join(FORMATS)}), or install what they need",
            )
    reason = missing_datasets(datasets, settings.datasets_file)
    yield AREA.problem_if(reason is not None, "file", ", ".join(datasets), reason or "", ADVICE)
