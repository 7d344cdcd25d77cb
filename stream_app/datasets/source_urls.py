"""The URLs of the sources of the datasets file. The file has the names of variables, and never a secret."""

from pydantic import SecretStr

from stream_app.datasets.file import DatasetsFile, DatasetsFileError
from stream_app.datasets.models import SourceSettings
from stream_app.setting_sources import secret_variable
from stream_app.setting_types import database_url
from streaming_exporter.kafka_settings import FROM_FILE


def source_urls(content: DatasetsFile) -> dict[str, SecretStr]:
    """Return the URL of each source, by name.

    Raises:
        DatasetsFileError: variables are not set, or their values are not the URL of a database.
    """
    urls, faults = {}, []
    for name, item in content.sources.items():
        url = url_or_fault(item)
        if isinstance(url, str):
            faults.append(content.fault(("sources", name, "url_env"), url))
        else:
            urls[name] = url
    if faults:
        raise DatasetsFileError(faults)
    return urls


def url_or_fault(source: SourceSettings) -> SecretStr | str:
    """Return the URL of a source, or a text that says why there is none."""
    variable = source.url_env
    try:
        url = secret_variable(variable)
        if url is None:
            return (
                f"the variable {variable} is not set; set it to the URL of the database, such as "
                f"postgresql://reader:…@host:5432/name, or {variable}{FROM_FILE} to a file that has the URL"
            )
        return database_url(url)
    except ValueError as error:
        text = str(error)
        return text if text.startswith(variable) else f"{variable}: {text}"
