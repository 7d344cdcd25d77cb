"""Routes that take their summary and description in OpenAPI from the docstring of their function."""

import inspect
from collections.abc import Callable
from typing import Any

from fastapi.routing import APIRoute


class DocumentedRoute(APIRoute):
    """A route whose summary is the first line of the docstring, and whose description is the rest."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Create the route. A summary and a description among ``options`` replace those of the docstring.

        Without docstrings (``python -OO``) these options are the only ones.
        """
        summary, _, description = inspect.cleandoc(endpoint.__doc__ or "").partition("\n\n")
        options["summary"] = options.get("summary") or summary.rstrip(".") or None
        options["description"] = options.get("description") or description
        super().__init__(path, endpoint, **options)
        self.description = options["description"]
