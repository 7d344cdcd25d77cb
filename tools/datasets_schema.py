"""JSON Schema of the datasets file, for editors, made from the models that read it. Does no I/O."""

import ast
import inspect
import re
from typing import Any

from pydantic import BaseModel

from stream_app.datasets.bundles import BundleSettings
from stream_app.datasets.destinations import KINDS
from stream_app.datasets.models import Dataset, SourceSettings
from tools.schemas import DIALECT, Plain

Schema = dict[str, Any]

TITLE = "Datasets file of the streaming exporter (TOML)"


def datasets_schema() -> Schema:
    """Return the schema of a whole file, as a program reads its TOML."""
    definitions: Schema = {}
    dataset, source = (_schema_of(model, definitions) for model in (Dataset, SourceSettings))
    bundle = _schema_of(BundleSettings, definitions)
    _with_column_tables(dataset)
    return {
        "$schema": DIALECT,
        "title": TITLE,
        "type": "object",
        "properties": {
            "sources": _entries(source, "Source databases besides that of EXPORTER_SOURCE_DATABASE_URL"),
            "datasets": _entries(dataset, "What can be exported"),
            "bundles": _entries(bundle, "Several datasets that one request exports together"),
            "destinations": _destinations(definitions),
        },
        "additionalProperties": False,
        "$defs": definitions,
    }


def _destinations(definitions: Schema) -> Schema:
    """Return the schema of destinations: an entry is of one of the kinds."""
    entries = [_entries(_schema_of(model, definitions), "") for model in KINDS.values()]
    return {
        "type": "object",
        "description": "Places that finished files can be sent to",
        "propertyNames": entries[0]["propertyNames"],
        "additionalProperties": {"oneOf": [item["additionalProperties"] for item in entries]},
    }


def _entries(schema: Schema, description: str) -> Schema:
    name = schema["properties"].pop("name")
    schema["required"] = [key for key in schema.get("required", []) if key != "name"]
    if not schema["required"]:
        del schema["required"]
    return {
        "type": "object",
        "description": description,
        "propertyNames": {"pattern": name["pattern"]},
        "additionalProperties": schema,
    }


def _schema_of(model: type[BaseModel], definitions: Schema) -> Schema:
    schema = model.model_json_schema(schema_generator=Plain)
    definitions |= schema.pop("$defs", {})
    schema.pop("title", None)
    for item in (schema, *definitions.values()):
        item.pop("title", None)
    _describe(schema, model)
    for kind in _models_of(model):
        _describe(definitions[kind.__name__], kind)
    return _without_null(schema)


def _models_of(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Return the models that fields of ``model`` have."""
    found = []
    for field in model.model_fields.values():
        for name in re.findall(r"datasets\.models\.(\w+)", repr(field.annotation)):
            kind = getattr(inspect.getmodule(model), name)
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found.append(kind)
    return found


def _describe(schema: Schema, model: type[BaseModel]) -> None:
    """Take the descriptions of the fields from the docstring of their model."""
    text = ast.get_docstring(ast.parse(inspect.getsource(model)).body[0]) or ""  # type: ignore[arg-type]
    summary, _, attributes = text.partition("\n\nAttributes:\n")
    schema["description"] = " ".join(summary.split())
    for names, words in re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE):
        for name in names.split(", "):
            if name in schema["properties"]:
                schema["properties"][name]["description"] = " ".join(
                    words.replace("``None``", "left out").replace("``", "`").split()
                )
    schema.update(_without_null(schema))


def _without_null(schema: Schema) -> Schema:
    """Return the schema without null, which TOML does not have: a key is left out instead."""
    for name, item in schema["properties"].items():
        if "patternProperties" in item:
            item["additionalProperties"] = False
        options = [option for option in item.get("anyOf", ()) if option != {"type": "null"}]
        if len(options) == 1:
            rest = {key: value for key, value in item.items() if key not in ("anyOf", "default")}
            schema["properties"][name] = options[0] | rest
        elif item.get("default", 0) is None:
            item.pop("default")
    return schema


def _with_column_tables(dataset: Schema) -> None:
    """Write the columns as the file has them: a list of names, or tables with ``only`` for the names."""
    fields = dataset["properties"]
    names, tables = fields["columns"], fields.pop("column_settings")
    description = names.pop("description", "")
    tables.pop("default", None)
    fields["only"] = names | {
        "description": "The exported columns, in this order, where `columns` has tables (default: all)."
    }
    fields["columns"] = {
        "description": f"{description} Or tables of single columns, such as [datasets.orders.columns.total].",
        "anyOf": [names, tables],
    }
    dataset["oneOf"] = [{"required": ["table"]}, {"required": ["query"]}]
