"""Every command and program in the documents is run by a test, or at least parsed."""

import json
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import openpyxl
import pytest
import typer

from producers.__main__ import cli
from stream_app.datasets.file import load_datasets
from streaming_exporter.events import Topic
from tests.built_once import command_of
from tests.documents import BLOCKS, DOCUMENTS, ROOT, Block
from tests.rows import each_row

SHELLS = {"sh", "bash", "console"}
RUNNABLE = SHELLS | {"python", "java", "go", "sql", "toml"}
DRY = [block for block in BLOCKS if block.test.startswith("dry ")]


def test_every_fenced_block_is_found() -> None:
    fences = sum(len(re.findall(r"^ *```", path.read_text("utf-8"), re.MULTILINE)) for path in DOCUMENTS)
    assert fences == 2 * len(BLOCKS)


@each_row("block", [block for block in BLOCKS if block.language in RUNNABLE])
def test_each_block_states_how_it_is_tested(block: Block) -> None:
    kind, _, rest = block.test.partition(" ")
    if kind.startswith("tests/"):
        assert block.document.name in (ROOT / kind).read_text("utf-8")
    elif block.test == "run":
        assert block.language in SHELLS | {"python"}
    elif kind == "dry":
        assert block.language in SHELLS
        assert rest in block.text
    else:
        assert re.fullmatch(r"not run: .{10,}", block.test), "a comment `<!-- test: … -->` is missing"


@each_row("block", [block for block in BLOCKS if block.language in SHELLS])
def test_shells_can_read_it(block: Block) -> None:
    done = subprocess.run(["sh", "-n"], input=block.text, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


@each_row("block", [b for b in BLOCKS if b.language in ("json", "toml", "python")])
def test_parsers_can_read_it(block: Block) -> None:
    parse: dict[str, Callable[[str], object]] = {
        "json": json.loads,
        "toml": tomllib.loads,
        "python": lambda text: compile(text, "-", "exec"),
    }
    assert parse[block.language](block.text)


@pytest.mark.parametrize("block", DRY, ids=str)
def test_dry_runs_succeed(block: Block, tmp_path: Path) -> None:
    """``make`` is the real program with ``-n``. Kafka's programs are replaced and print their arguments."""
    program = block.test.removeprefix("dry ")
    environment = {**os.environ, "BROKERS": "broker:9092"}
    if program == "make":
        environment |= {"MAKEFLAGS": "n"}
    else:
        stub = tmp_path / program
        stub.write_text('#!/bin/sh\necho "$@"\n')
        stub.chmod(0o755)
        environment |= {"PATH": f"{tmp_path}:{environment['PATH']}"}
    done = subprocess.run(
        ["sh", "-eu", "-c", block.text], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    if program != "make":
        calls = [shlex.split(line) for line in done.stdout.splitlines()]
        topics = {after for call in calls for word, after in pairwise(call) if word == "--topic"}
        # The command reads the topics from which the records of jobs are restored.
        again = {Topic.REQUESTS, Topic.EVENTS}
        assert topics == (again if program == "kafka-consumer-groups.sh" else set(Topic))
        assert all(call[:2] == ["--bootstrap-server", "broker:9092"] for call in calls)


@pytest.mark.parametrize("page", ["README.md", "datasets.md"])
def test_the_datasets_of_the_pages_can_be_loaded(page: str, tmp_path: Path) -> None:
    block = next(b for b in BLOCKS if b.document.name == page and b.language == "toml")
    (tmp_path / "datasets.toml").write_text(block.text)
    openpyxl.Workbook().save(tmp_path / "orders.xlsx")
    assert load_datasets(tmp_path / "datasets.toml").datasets["orders"].owner == "customer_id"


def test_the_bundles_of_their_page_can_be_loaded(tmp_path: Path) -> None:
    block = next(b for b in BLOCKS if b.document.name == "bundles.md" and b.language == "toml")
    (tmp_path / "datasets.toml").write_text(block.text)
    bundles = load_datasets(tmp_path / "datasets.toml").bundles
    assert [item.name for item in bundles["my_data"].members] == ["enrollments", "ledger"]
    assert bundles["personal_data"].members == bundles["my_data"].members


def test_each_upgrade_by_helm_waits_for_a_long_migration() -> None:
    """Its default is 5 minutes. Then it fails, and the next one deletes the migration while it runs."""
    lines = [line for path in DOCUMENTS for line in path.read_text("utf-8").splitlines()]
    upgrades = [line for line in lines if re.search(r"\bhelm .*\bupgrade --", line)]
    assert upgrades
    assert [line for line in upgrades if "--timeout 2h" not in line] == []


NOT_RUN = {
    "age": "the program of a receiver; tests of encrypted files decrypt them with the library",
    "apt-get": "only root may",
    "docker": "needs its daemon; tests/unit/test_compose.py reads the file",
    "kafka-consumer-groups.sh": "Kafka's programs are no package of Python's",
    "kafka-configs.sh": "Kafka's programs are no package of Python's",
    "kafka-topics.sh": "as above",
    "pip": "CI begins with an installation",
    "set": "a command of the shell itself",
}
"""Programs in the text that no test runs, each with the reason."""

_COMMAND = re.compile(r"[a-z][\w.-]*\s(?:.*\s)?(?:-|install|compose)|(?:exporter|make)\s", re.DOTALL)


def commands() -> Iterator[tuple[Path, str]]:
    """Yield commands inside of text: those with an option, or of a program of the project."""
    for path in DOCUMENTS:
        text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
        yield from ((path, code) for code in re.findall(r"`([^`]+)`", text) if _COMMAND.match(code))


@each_row(("path", "command"), list(commands()))
def test_commands_in_the_text_exist_with_their_options(path: Path, command: str) -> None:
    program, *words = shlex.split(command)
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert words[0] in targets
    elif program == "python":
        assert words[0] == "-m"
        assert find_spec(words[1])
    elif program == "exporter":
        found = command_of(cli)
        while words and isinstance(found, typer.core.TyperGroup) and not words[0].startswith("-"):
            inner = found.get_command(typer.Context(found), name := words.pop(0))
            assert inner is not None, f"there is no command {name}"
            found = inner
        known = {option for parameter in found.params for option in parameter.opts} | {"--help"}
        assert {word.strip("[]") for word in words if word.startswith(("-", "[-"))} <= known
    else:
        assert program in NOT_RUN
