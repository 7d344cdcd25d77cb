"""The order, the groups and the limits of tests, and what each process that runs them loads."""

import gc
import os
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import hypothesis
import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from tests import durations, endings, fewer_messages
from tests.measurement import unmeasured
from tests.waiting import FACTOR

PLUGINS = ("tests.process_state", "tests.service_fixtures")
"""Modules for processes that run tests. One that only distributes them starts in half the time without."""

WHOLE = {"tests/e2e/test_page": "pages", "tests/e2e/": "e2e", "tests/integration/dev/": "stacks"}
"""Files by how their path begins, and the group whose tests run in one process.

They use the same processes of the service, pages the same browser, and tests of the stack a further stack.
These groups begin first, so that no process ends late.
"""

WAITING = "tests/chaos/"
"""Files whose tests wait more than they compute. Beside each other they would leave the processors idle."""

UNMEASURED = "tests/unit/tools/"
"""Files whose tests reach no line that counts. The measurement of coverage would only make them slower."""

SPREAD = 0.8
"""The share of the run over which the files of :data:`WAITING` are spread."""

TIMES = 6
"""A test can take this many times its recorded seconds, because other machines are slower."""

USUAL = 0.05
"""Assumed seconds of a test whose duration is not recorded."""

# The same inputs in every run, a quarter of them in the inner loop. The last has new ones, twice as many.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.register_profile("inner-loop", derandomize=True, deadline=None, max_examples=12)
hypothesis.settings.register_profile("explore", derandomize=False, deadline=None, print_blob=True)
hypothesis.settings.load_profile("fixed")

# Imports and collected tests are no garbage. To look for it takes a fifth of the time of the collection.
gc.disable()


class _Places(list[str]):
    """Names of tests. To search a list for each of them takes seconds."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)
        self._places = {name: place for place, name in enumerate(names)}

    def index(self, name: str, *_: Any) -> int:
        return self._places[name]


class Groups(LoadScopeScheduling):  # type: ignore[misc]
    """Runs the tests of a file, and of some folders, in one process, so that fixtures are built once.

    pytest-xdist 3.8 has marks for this (``--dist loadgroup``), which do not work with pytest 9.2.
    """

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        """Keep what a process has collected, in a form in which each test is found at once."""
        super().add_node_collection(node, collection)
        if node in self.registered_collections:
            self.registered_collections[node] = _Places(collection)

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return _whole(file) or file


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--record-durations``."""
    parser.addoption(
        "--record-durations", action="store_true", help="write how long tests take into tests/durations.json"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Load :data:`PLUGINS`, and record the durations in the process that has the reports of all tests."""
    is_worker = hasattr(config, "workerinput")
    if is_worker:
        fewer_messages.send_outcomes_only(config)
    elif config.getoption("--record-durations"):
        config.pluginmanager.register(durations.Recorder())
    if is_worker or config.getoption("dist", "no") == "no" or config.option.collectonly:
        for name in PLUGINS:
            config.pluginmanager.import_plugin(name)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Groups:
    """Distribute groups in the order in which they were collected."""
    config.option.loadscopereorder = False
    _forget_garbage()  # this process collects no tests, and waits now
    return Groups(config, log)


def make_ids_distinct(items: Sequence[pytest.Item]) -> None:
    """Give each test the id that its name says.

    All tests that schemathesis 4.32 makes from one function have the same id with pytest 9.2, and of tests
    with the same id pytest-xdist runs one only, without a word.

    Raises:
        pytest.UsageError: two tests have the same name in the same file.
    """
    for item in items:
        if not item.nodeid.endswith(item.name):
            item._id = item._id.parse(f"{item.nodeid.rpartition('::')[0]}::{item.name}")
    if doubled := [name for name, count in Counter(item.nodeid for item in items).items() if count > 1]:
        raise pytest.UsageError(f"tests with the same id, of which only one would run: {', '.join(doubled)}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests, set the limit of each, and mark those that are not measured."""
    make_ids_distinct(items)
    known = durations.recorded()
    for item in items:
        _be_patient(item, known.get(item.nodeid, 0.0))
        if item.nodeid.startswith(UNMEASURED):
            item.add_marker(pytest.mark.unmeasured)
    _spread(items, known)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Do not measure a test with the mark ``unmeasured`` and the processes that it starts."""
    if item.get_closest_marker("unmeasured") is None:
        return (yield)
    with unmeasured():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """After the fixtures of the test, end what the next test does not use, also if a fixture fails."""
    try:
        return (yield)
    finally:
        endings.close(item.config, "" if nextitem is None else nextitem.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what a run that is interrupted has left."""
    endings.close(session.config)


def pytest_collection_finish() -> None:
    """Exclude imported objects from garbage collection: each collection would visit a million of them.

    Remove the caller's settings from the environment, because tests use their own services.
    """
    _forget_garbage()
    for name in [name for name in os.environ if name.startswith("EXPORTER_")]:
        del os.environ[name]
    os.environ["EXPORTER_SETTINGS_FILE"] = os.devnull
    # The servers of the tests have no TLS. To ask each of them for it takes half of the time of a connection.
    os.environ["PGSSLMODE"] = "disable"


def _forget_garbage() -> None:
    # Nothing is collected before: a tenth of the time of a start, for a few objects.
    gc.freeze()
    gc.enable()
    # Tests make many short-lived objects. Fewer searches for cycles take a twentieth less of their time.
    gc.set_threshold(10_000, 20, 20)


def _be_patient(item: pytest.Item, recorded: float) -> None:
    """Let a test take :data:`TIMES` its recorded seconds, and multiply its limit by :data:`FACTOR`."""
    marker = item.get_closest_marker("timeout")
    usual = float(marker.args[0] if marker else item.config.getini("timeout"))
    limit = max(usual, recorded * TIMES) * FACTOR
    if limit != usual:
        item.add_marker(pytest.mark.timeout(limit), append=False)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name long texts by their argument, so that a test has the same name in every process."""
    return argname if isinstance(val, str) and len(val) > 40 else None


def _line(item: pytest.Item) -> int:
    """Return the line of the test in its module if the module is ``IN_ORDER``, else 0."""
    if isinstance(item, pytest.Function) and getattr(item.module, "IN_ORDER", False):
        return int(item.function.__code__.co_firstlineno)
    return 0


def _spread(items: list[pytest.Item], known: Mapping[str, float]) -> None:
    """Order the files: those of :data:`WHOLE` begin first, then come the others, the longest first.

    The files of :data:`WAITING` have places between those of the others, in proportion to their times.
    Otherwise the random order stays, but for modules ``IN_ORDER``.
    """
    long: defaultdict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for item in items:
        long[_file(item)] += known.get(item.nodeid, 0.0)
        counts[_file(item)] += 1
    places: dict[str, float] = {file: number for number, file in enumerate(long)}
    for waits in (False, True):
        files = [file for file in long if _whole(file) is None and file.startswith(WAITING) == waits]
        files.sort(key=lambda file: -long[file])
        seconds = [long[file] + USUAL * counts[file] for file in files]
        starts = accumulate(seconds, initial=0.0)
        share = SPREAD if waits else 1.0
        places |= {file: start / sum(seconds) * share for file, start in zip(files, starts, strict=False)}

    def place(item: pytest.Item) -> tuple[bool, str, float, str, int]:
        file = _file(item)
        whole = _whole(file)
        return whole is None, whole or "", places[file], file, _line(item)

    items.sort(key=place)


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _whole(file: str) -> str | None:
    """Return the group of :data:`WHOLE` that a file belongs to."""
    return next((group for start, group in WHOLE.items() if file.startswith(start)), None)


@pytest.fixture(autouse=True, scope="module")
def _collected() -> Iterator[None]:
    """Collect garbage after each module, so that resources left open fail the module that left them.

    The next collection does not visit what is left, such as modules that were imported.
    """
    yield
    gc.collect()
    gc.freeze()
