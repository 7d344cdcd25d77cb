"""Opens the datasets of a process, which follow their file while the process runs."""

from collections.abc import Callable

import structlog
from pydantic import SecretStr

from stream_app.database_url import DatabaseUrl
from stream_app.datasets.file import DatasetsFile, load_datasets
from stream_app.datasets.missing_datasets import log_missing_datasets
from stream_app.datasets.registry import Datasets
from stream_app.datasets.source_urls import url_or_fault
from stream_app.datasets.watcher import DatasetsWatcher
from stream_app.exports.formats.registry import FORMAT_PLUGINS, FORMATS
from stream_app.exports.masks.registry import MASK_PLUGINS
from stream_app.exports.plugins import log_plugins
from stream_app.exports.sources.registry import Sources
from stream_app.observability import metric_labels
from stream_app.settings import Settings

log = structlog.get_logger(__name__)


def open_datasets(settings: Settings) -> Datasets:
    """Read the datasets file, and log the plugins, that there are no datasets, and what URLs cannot have.

    Raises:
        DatasetsFileError: the file is unusable.
    """
    log_plugins((*FORMAT_PLUGINS.plugins, *MASK_PLUGINS.plugins))
    datasets = Datasets(load_datasets(settings.datasets_file))
    log_missing_datasets(datasets, settings.datasets_file)
    _log_ignored_parameters(settings, datasets.content)
    metric_labels.set_known_labels(datasets=datasets, formats=FORMATS)
    return datasets


def _log_ignored_parameters(settings: Settings, content: DatasetsFile) -> None:
    """Log a line for each URL of a database whose parameters of other libraries have no effect."""
    urls: dict[str, SecretStr | str | None] = {
        "EXPORTER_DATABASE_URL": settings.database_url,
        "EXPORTER_SOURCE_DATABASE_URL": settings.source_database_url,
        **{item.url_env: url_or_fault(item) for item in content.sources.values()},
    }
    for variable, url in urls.items():
        if isinstance(url, SecretStr) and (ignored := DatabaseUrl.parse(url.get_secret_value()).ignored):
            log.warning("database_url.parameters_ignored", variable=variable, parameters=ignored)


def datasets_watcher(
    settings: Settings, datasets: Datasets, *pools: Sources, then: Callable[[], None] = lambda: None
) -> DatasetsWatcher:
    """Return the watcher of the file, which gives each change to ``datasets``, the pools and the metrics.

    Args:
        pools: the pools of connections to the sources that the file names. The first one refuses a file whose
            sources cannot be used.
        then: called after each change.
    """
    return DatasetsWatcher(
        settings.datasets_file,
        datasets,
        replace=(
            *(pool.replace for pool in pools),
            lambda new: metric_labels.set_known_labels(datasets=new.requestable, formats=FORMATS),
            lambda _: then(),
        ),
    )
