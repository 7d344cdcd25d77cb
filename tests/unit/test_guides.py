"""Names in the guides exist: settings, commands, topics, types, tables."""

import json
import re
from functools import cache
from pathlib import Path

from producers.__main__ import cli
from stream_app.setting_sources import is_secret, known_variables
from stream_app.settings import Settings
from streaming_exporter.events import Topic
from streaming_exporter.outbox.__main__ import DATABASE_URL as OUTBOX_DATABASE_URL
from tests.built_once import command_of
from tests.rows import each_row

ROOT = Path(__file__).parents[2]
GUIDES = {path.name: path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md")}
OPERATIONS = GUIDES["operations.md"]


def blocks(guide: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDES[guide], re.DOTALL)


@cache
def all_variables() -> set[str]:
    return {*known_variables(Settings.model_fields), OUTBOX_DATABASE_URL}


@each_row("guide", GUIDES)
def test_settings_commands_and_topics_exist(guide: str) -> None:
    text = GUIDES[guide]
    settings = all_variables()
    named = set(re.findall(r"\bEXPORTER_[A-Z0-9_]*[A-Z0-9]\b(?![*_])", text))
    assert named <= settings
    commands = set(command_of(cli).list_commands(None))  # type: ignore[attr-defined]
    assert set(re.findall(r"`exporter ([a-z][a-z-]*)", text)) <= commands
    assert set(re.findall(r"`(exports\.[a-z-]+)`", text)) <= set(Topic)


@each_row("guide", GUIDES)
def test_headings_that_are_linked_exist(guide: str) -> None:
    text = GUIDES[guide]
    headings = [re.sub(r"[^\w -]", "", line).strip().lower() for line in re.findall(r"^#+ (.*)", text, re.M)]
    linked = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert linked <= {heading.replace(" ", "-") for heading in headings}


def test_every_secret_is_in_the_guide_about_secrets_in_files() -> None:
    """The command line alone has a token, so it has no line in the table of when a new secret is used."""
    _, _, text = OPERATIONS.partition("### Secrets in files")
    text, _, table = text.partition("### The rest")[0].partition("| secret |")
    secrets = {name.upper() for name, field in Settings.model_fields.items() if is_secret(field)}
    databases = {"DATABASE_URL", "SOURCE_DATABASE_URL"}
    assert {name for name in secrets - databases if f"`{name}`" not in text} == set()
    assert {name for name in secrets if f"`{name}`" not in table} == {"TOKEN"}


def test_bucket_policies_name_the_bucket_of_the_manifests() -> None:
    policies = [json.loads(block) for block in blocks("operations.md", "json")]
    settings = (ROOT / "deploy" / "kubernetes" / "base" / "settings.env").read_text("utf-8")
    bucket = re.search(r"EXPORTER_S3_BUCKET=(\w+)", settings)
    assert bucket is not None
    assert len(policies) == 2
    for policy in policies:
        resources = {statement["Resource"] for statement in policy["Statement"]}
        assert resources == {f"arn:aws:s3:::{bucket[1]}", f"arn:aws:s3:::{bucket[1]}/jobs/*"}


def test_principals_have_permissions_on_every_topic_and_the_manifests_use_them() -> None:
    commands = "".join(blocks("operations.md", "sh"))
    acls = "\n".join(line for line in commands.splitlines() if "--allow-principal" in line)
    assert set(re.findall(r"--topic (\S+)", acls)) == set(Topic)
    secrets = (ROOT / "deploy" / "kubernetes" / "base" / "secrets.example.yaml").read_text("utf-8")
    users = set(re.findall(r"EXPORTER_KAFKA_SASL_USERNAME: (\S+)", secrets))
    assert users
    assert users <= set(re.findall(r"User:(\S+)", acls))
    assert f"--group {Settings.model_fields['kafka_group'].default}" in acls
