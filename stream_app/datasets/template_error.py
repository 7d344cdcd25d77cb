"""The error of a template that does not fit its dataset, in a module that imports no openpyxl."""

from streaming_exporter.errors import Rejected


class TemplateError(Rejected):
    """A template does not fit its dataset. The text has the reason."""

    code = "bad_template"
