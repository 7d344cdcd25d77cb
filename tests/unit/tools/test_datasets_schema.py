"""The JSON Schema of the datasets file accepts what the service accepts, and no misspelt key."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from jsonschema_rs import Draft202012Validator

from stream_app.datasets.faults import DatasetsFileError
from stream_app.datasets.file import load_datasets
from stream_app.datasets.models import Dataset, SourceSettings
from tests.documents import BLOCKS, ROOT
from tests.unit.datasets.test_file import WHOLE
from tools.datasets_schema import datasets_schema

EXAMPLES = [
    WHOLE,
    (ROOT / "dev" / "datasets" / "datasets.toml").read_text("utf-8"),
    *(
        block.text
        for block in BLOCKS
        if block.language == "toml" and re.search(r"^(table|query) = ", block.text, re.MULTILINE)
    ),
]
WRONG = [
    "[dataset.a]\ntable = 'a'",
    "[datasets.a]\ntabel = 'a'",
    "[datasets.a]\ntable = 'a'\nquery = 'select 1'",
    "[datasets.a]\ndescription = 'neither'",
    "[datasets.a]\ntable = 'a'\ncolumns = 'x'",
    "[datasets.a]\ntable = 'a'\ncolumns = []",
    "[datasets.a]\ntable = 'a'\n[datasets.a.columns.x]\nmaks = 'email'",
    "[datasets.a]\ntable = 'a'\n[datasets.a.scopes.org]\nclaim = 'org'",
    "[datasets.a]\ntable = 'a'\nlabels = { de = '' }",
    "[datasets.a]\ntable = 'a'\nlabels = { 'not a language' = 'x' }",
    "[datasets.a]\ntable = 'a'\nmax_rows = 0",
    "[datasets.'a b']\ntable = 'a'",
    "[sources.crm]\nurl = 'postgresql://x'",
    "[sources.crm]\nurl_env = 'CRM'\nconnections = 1",
    "[sources.crm]\nconnections = 4",
    "[datasets.a]\nquery = 'select :x::int as n'\n[datasets.a.parameters.x]\ntype = 'money'",
]


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    return Draft202012Validator(datasets_schema())


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples_are_valid(validator: Draft202012Validator, text: str) -> None:
    assert [error.message for error in validator.iter_errors(tomllib.loads(text))] == []


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_what_the_service_refuses_is_not_valid(
    validator: Draft202012Validator, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "datasets.toml"
    path.write_text(text)
    with pytest.raises(DatasetsFileError):
        load_datasets(path)
    assert not validator.is_valid(tomllib.loads(text))


def test_every_key_of_the_models_is_in_the_schema() -> None:
    schema = datasets_schema()
    dataset = schema["properties"]["datasets"]["additionalProperties"]
    source = schema["properties"]["sources"]["additionalProperties"]
    assert set(dataset["properties"]) == Dataset.model_fields.keys() - {"name", "column_settings"} | {"only"}
    assert set(source["properties"]) == SourceSettings.model_fields.keys() - {"name"}
    assert "null" not in json.dumps(schema), "TOML has no null"
