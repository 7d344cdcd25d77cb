"""Changes of the datasets file are taken without a restart, and a file with a fault changes nothing."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from stream_app.datasets.file import DatasetsFile, DatasetsFileError, load_datasets
from stream_app.datasets.registry import Datasets
from stream_app.datasets.watcher import RETRY_SECONDS, DatasetsWatcher
from stream_app.observability import metrics

ONE = '[datasets.one]\ntable = "one"\n'
TWO = ONE + '[datasets.two]\ntable = "two"\n'
FAULTY = ONE + '[datasets.two]\ntabel = "two"\n'


def write_in_place(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


def replace_file(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text, "utf-8")
    new.replace(path)


def swap_link(path: Path, text: str) -> None:
    """As Kubernetes changes a volume: the file is a link through ``..data``, which is replaced at once."""
    folder = path.parent / f"..{len(list(path.parent.iterdir()))}"
    folder.mkdir()
    (folder / path.name).write_text(text, "utf-8")
    link = path.parent / "..new"
    link.symlink_to(folder.name)
    link.replace(path.parent / "..data")
    if not path.is_symlink():
        path.unlink(missing_ok=True)
        path.symlink_to(Path("..data", path.name))


def watching(path: Path, *replace: Callable[[DatasetsFile], object]) -> tuple[DatasetsWatcher, Datasets]:
    datasets = Datasets(load_datasets(path))
    return DatasetsWatcher(path, datasets, replace=replace), datasets


async def settle(watcher: DatasetsWatcher) -> None:
    """Look twice: the first time the change is seen, and the second time it is not changing any more."""
    await watcher.look()
    await watcher.look()


@pytest.mark.parametrize("change", [write_in_place, replace_file, swap_link])
@pytest.mark.parametrize("is_folder", [False, True])
async def test_a_change_is_taken_at_once(
    tmp_path: Path, change: Callable[[Path, str], None], is_folder: bool
) -> None:
    path = tmp_path / "datasets.toml"
    change(path, ONE)
    watcher, datasets = watching(tmp_path if is_folder else path)
    await settle(watcher)
    change(path, TWO)
    await watcher.look()
    assert list(datasets) == ["one"], "it could be half written"
    with capture_logs() as lines:
        await watcher.look()
        await settle(watcher)
    assert list(datasets) == ["one", "two"]
    (line,) = [line for line in lines if line["event"] == "datasets_file.reloaded"]
    assert line["changed"] == ["two"]
    change(path, ONE)
    await settle(watcher)
    assert list(datasets) == ["one"]


async def test_a_file_with_a_fault_changes_nothing_and_is_reported_once(tmp_path: Path) -> None:
    path = tmp_path / "datasets.toml"
    path.write_text(ONE)
    watcher, datasets = watching(path)
    await settle(watcher)
    before, loaded_at = datasets.content, watcher.loaded_at
    path.write_text(FAULTY)
    with capture_logs() as lines:
        for _ in range(4):
            await settle(watcher)
    assert datasets.content is before
    assert [line["event"] for line in lines] == ["datasets_file.reload_failed"]
    assert "datasets.toml:4: datasets.two.tabel: there is no key 'tabel'; did you mean table?" in str(
        watcher.problem
    )
    assert metrics.PROCESS.get_sample_value("exporter_datasets_reload_failed") == 1
    assert watcher.loaded_at == loaded_at
    path.write_text(ONE)
    await settle(watcher)
    assert watcher.problem is None, "the file that is in use is there again"
    assert metrics.PROCESS.get_sample_value("exporter_datasets_reload_failed") == 0
    path.write_text(TWO)
    await settle(watcher)
    assert len(datasets) == 2


@pytest.mark.parametrize("fault", ["gone", "not toml", "not utf-8", "nested too deeply", "empty folder"])
async def test_no_fault_ends_the_watch(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "datasets.toml"
    path.write_text(ONE)
    watcher, datasets = watching(path)
    path.unlink()
    if fault == "not toml":
        path.write_text("[datasets.one\n")
    elif fault == "not utf-8":
        path.write_bytes(b"\xff\xfe")
    elif fault == "nested too deeply":
        path.write_text(f"{ONE}columns = {'[' * 5_000}{']' * 5_000}\n")
    elif fault == "empty folder":
        path.mkdir()
    await settle(watcher)
    assert watcher.problem is not None
    assert list(datasets) == ["one"]
    if path.is_dir():
        path.rmdir()
    path.write_text(TWO)
    await settle(watcher)
    assert list(datasets) == ["one", "two"]


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(116, "Stale file handle")]
)
async def test_a_path_that_cannot_be_read_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """The volume of the file can fail, or its rights can change, while the service runs."""
    path = tmp_path / "datasets.toml"
    path.write_text(ONE)
    watcher, datasets = watching(path)
    await settle(watcher)

    def fail(_: Path, **__: object) -> os.stat_result:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(Path, "stat", fail)
        await settle(watcher)
    assert str(error.strerror) in str(watcher.problem)
    assert list(datasets) == ["one"]
    await settle(watcher)
    assert watcher.problem is None


async def test_an_error_that_nobody_expects_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "datasets.toml"
    path.write_text(ONE)
    refused = list[DatasetsFile]()

    def fail(content: DatasetsFile) -> None:
        refused.append(content)
        raise ArithmeticError("of a library")

    watcher, datasets = watching(path, fail)
    path.write_text(TWO)
    for _ in range(3):
        await settle(watcher)
    assert "ArithmeticError: of a library" in str(watcher.problem)
    assert len(refused) == 1, "it is tried again after a pause, not at each look"
    assert list(datasets) == ["one"]


async def test_a_file_whose_secret_comes_later_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first function refuses the file, and then neither datasets nor sources change."""
    path = tmp_path / "datasets.toml"
    path.write_text(ONE)
    refusing, taken = [True], list[DatasetsFile]()

    def replace(content: DatasetsFile) -> None:
        if refusing[0]:
            raise DatasetsFileError("the variable CRM_DATABASE_URL is not set")
        taken.append(content)

    watcher, datasets = watching(path, replace)
    path.write_text(TWO)
    await settle(watcher)
    assert "CRM_DATABASE_URL" in str(watcher.problem)
    assert list(datasets) == ["one"]
    refusing[0] = False
    await settle(watcher)
    assert taken == [], "it is tried again after a pause"
    monotonic = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + RETRY_SECONDS)
    await settle(watcher)
    assert len(taken) == 1
    assert watcher.problem is None
    assert list(datasets) == ["one", "two"]


async def test_a_change_before_the_first_look_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "datasets.toml"
    path.write_text(ONE)
    watcher, datasets = watching(path)
    path.write_text(TWO)
    os.utime(path, (0, 0))
    await settle(watcher)
    assert list(datasets) == ["one", "two"]


async def test_without_a_file_there_is_nothing_to_watch() -> None:
    datasets = Datasets(load_datasets(None))
    watcher = DatasetsWatcher(None, datasets)
    await settle(watcher)
    assert watcher.problem is None
