"""The whole stack: services that the environment replaces, its end, and `python -m dev up`."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dev.cache import UsageError
from dev.process import free_ports
from dev.stack import ROOT, Stack
from tests.integration.dev.processes import WAIT_SECONDS, descendants, wait_gone
from tests.waiting import patient, until

START = 120.0


@contextmanager
def python(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a Python process in this project, with its messages in ``stderr``, and without settings.

    Its clients ask PostgreSQL for TLS, as they do where no variable says otherwise.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("EXPORTER_", "PGSSL"))}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=clean,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def starting(folder: Path) -> str:
    return (
        # Tests in the background ignore SIGINT, and this process would inherit that.
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path\n"
        "from dev.stack import Stack\n"
        f"with Stack(Path({str(folder)!r}), ledger_rows=None) as stack:\n"
        "    print('started', flush=True)\n"
        "    __import__('time').sleep(300)\n"
    )


def test_services_in_the_environment_are_not_started(
    fragile: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in fragile.settings().items():
        monkeypatch.setenv(key, value)
    with Stack(tmp_path / "guest") as guest:
        assert guest.services == {}
        assert guest.settings() == fragile.settings()
        with pytest.raises(UsageError, match="kafka is not run by this stack"):
            guest.kafka  # noqa: B018


def test_one_folder_holds_one_stack(fragile: Stack) -> None:
    with pytest.raises(UsageError, match="another process runs a stack"), Stack(fragile.run_dir):
        pytest.fail("it started")
    assert fragile.postgres.data_dir.exists()
    assert all(process.running for process in fragile.processes().values())


@pytest.mark.slow
def test_nothing_outlives_a_stack_whose_process_is_killed(tmp_path: Path) -> None:
    with python("-c", starting(tmp_path / "run")) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        children = descendants(process.pid)
        assert len(children) >= 4
        process.kill()
        wait_gone(*children)


def test_an_interrupted_start_leaves_nothing_behind(tmp_path: Path) -> None:
    with python("-c", starting(tmp_path / "run")) as process:
        log = tmp_path / "run" / "logs" / "kafka.log"
        until(log.exists, within=START)
        children = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        process.wait(WAIT_SECONDS)
        wait_gone(*children)
    assert os.listdir(tmp_path / "run") == ["logs"]


@pytest.mark.slow
def test_up_serves_prints_addresses_and_cleans_up(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with python(
        "-m", "dev", "up", "--port", str(port), "--folder", str(tmp_path), "--rows", "100"
    ) as process:
        facts_file = tmp_path / "stack.json"
        variables = tmp_path / "stack.env"
        until(
            lambda: (
                process.poll() is not None or (variables.exists() and variables.read_text().endswith("\n"))
            ),
            within=START,
        )
        assert process.poll() is None, process.communicate()
        facts = json.loads(facts_file.read_text())
        assert facts.keys() == {
            "api_url", "token", "admin_token", "operator_token", "kafka_bootstrap_servers",
            "worker_metrics_urls",
            "database_url", "source_database_url",
            "s3_endpoint", "s3_access_key", "s3_secret_key", "s3_bucket", "smtp_url", "pids",
        }  # fmt: skip
        assert facts["pids"].keys() == {"kafka", "postgres", "s3", "smtp", "worker-1", "ticker", "api"}
        [metrics] = facts["worker_metrics_urls"]
        with urllib.request.urlopen(metrics, timeout=patient(10)) as answer:
            assert b"exporter_slots" in answer.read()
        assert stat.S_IMODE(facts_file.stat().st_mode) == 0o600
        sourced = subprocess.run(
            ["sh", "-c", f". {tmp_path}/stack.env && echo $EXPORTER_DATABASE_URL"],
            capture_output=True,
            text=True,
        )
        assert sourced.stdout.strip() == facts["database_url"]
        calls = {"/exports/jobs": "token", "/readyz": "admin_token", "/exports/operations": "operator_token"}
        for path, token in ((path, facts[name]) for path, name in calls.items()):
            request = urllib.request.Request(
                facts["api_url"] + path, headers={"Authorization": f"Bearer {token}"}
            )
            with urllib.request.urlopen(request, timeout=patient(10)) as answer:
                assert answer.status == 200

        # P21: processes that die are started again, also all at once.
        first = {name: facts["pids"][name] for name in ("worker-1", "ticker", "api")}
        for pid in first.values():
            os.kill(pid, signal.SIGKILL)

        def started_again() -> bool:
            now = json.loads(facts_file.read_text())["pids"]
            return all(now.get(name, pid) != pid for name, pid in first.items())

        until(lambda: process.poll() is not None or started_again(), within=START)
        assert process.poll() is None, process.communicate()
        facts = json.loads(facts_file.read_text())

        process.send_signal(signal.SIGTERM)
        _, messages = process.communicate(timeout=patient(WAIT_SECONDS + 30))
        assert process.returncode == 0, messages
        assert facts["token"] in messages
        for name in first:
            assert f"{name} ended with -9 (SIGKILL) and is started again in 0.5 s (1 of 5)" in messages
        wait_gone(*facts["pids"].values())
    assert sorted(os.listdir(tmp_path)) == ["up"]
    assert os.listdir(tmp_path / "up") == ["logs"]


def test_a_taken_port_is_named_with_the_solution(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with python("-m", "dev", "up", "--port", port, "--folder", str(tmp_path)) as process:
            _, messages = process.communicate(timeout=patient(WAIT_SECONDS))
    assert process.returncode == 2
    assert f"port {port} is taken" in messages
    assert "PORT=" in messages
