"""Finds formats and masks of other packages by their entry points, and refuses those that cannot be used."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

INTERFACE = 1
"""Version of the interface between the service and plug-ins. A plug-in has the version that it was made for.

It grows when plug-ins have to change. Additions do not change it.
"""

FORMATS_GROUP = "streaming_exporter.formats"
MASKS_GROUP = "streaming_exporter.masks"

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Plugin:
    """An entry point of another package.

    Attributes:
        group: the group of its entry point.
        name: the name of its entry point, by which requests or datasets use it.
        package: its distribution with the version, such as ``acme-exports 1.2``.
        reason: why it is refused; ``None`` if it is in use.
    """

    group: str
    name: str
    package: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class LoadedPlugins(Generic[Item]):
    """The plug-ins of one group.

    Attributes:
        items: those in use, by name.
        plugins: all of them, also those that are refused.
    """

    items: Mapping[str, Item]
    plugins: tuple[Plugin, ...]

    @property
    def refused(self) -> tuple[Plugin, ...]:
        """Those that are not in use."""
        return tuple(plugin for plugin in self.plugins if plugin.reason is not None)


class UnusablePlugin(Exception):
    """A plug-in cannot be used. The text has the reason."""


class PluginFailed(Exception):
    """The code of a plug-in has failed in a way that would harm more than its own job."""


@contextmanager
def ordinary_errors() -> Iterator[None]:
    """Raise an ordinary error for what the code of another package must not raise in a running process.

    ``SystemExit`` would end the process. ``StopIteration`` cannot be the result of a thread: the caller would
    wait forever.

    Raises:
        PluginFailed: one of these was raised.
    """
    try:
        yield
    except (StopIteration, SystemExit) as error:
        raise PluginFailed(f"the code of a format or mask raised {type(error).__name__}: {error}") from error


def load_plugins(
    group: str,
    base: type[Any],
    *,
    taken: Collection[str] = (),
    check: Callable[[Item], None],
    found: Iterable[EntryPoint] | None = None,
) -> LoadedPlugins[Item]:
    """Import the plug-ins of a group. A plug-in that cannot be used is refused; the others are in use.

    Args:
        group: the group of the entry points.
        base: the class that a plug-in is derived from. An entry point names such a class or an object of it.
        taken: names that plug-ins cannot have, because the service has something with this name.
        check: raises :class:`UnusablePlugin` if the object lacks what the service needs.
        found: the entry points (default: those of all installed packages).
    """
    items: dict[str, Item] = {}
    plugins = []
    owners = dict.fromkeys(taken, "the service itself")
    # The same order in every process: if two plug-ins have one name, every worker uses the same one.
    for entry in sorted(entry_points(group=group) if found is None else found, key=_order):
        plugin = Plugin(group, entry.name, _package(entry))
        try:
            if entry.name in owners:
                raise UnusablePlugin(f"the name is taken by {owners[entry.name]}")
            item: Item = _load(entry, base)
            check(item)
        except UnusablePlugin as error:
            plugins.append(Plugin(group, plugin.name, plugin.package, str(error)))
        else:
            items[entry.name] = item
            owners[entry.name] = plugin.package
            plugins.append(plugin)
    return LoadedPlugins(items, tuple(plugins))


def _order(entry: EntryPoint) -> tuple[str, str, str]:
    return entry.name, _package(entry), entry.value


def _package(entry: EntryPoint) -> str:
    return "an unknown package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _load(entry: EntryPoint, base: type[Any]) -> Any:
    """Return the object of an entry point.

    Raises:
        UnusablePlugin: it cannot be imported, or it is not what it should be.
    """
    try:
        loaded = entry.load()
        item = loaded() if isinstance(loaded, type) else loaded
    except (Exception, SystemExit) as error:  # the code of another package can raise anything
        raise UnusablePlugin(f"{entry.value} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(item, base):
        raise UnusablePlugin(
            f"{entry.value} must be a subclass of stream_app.plugins.{base.__name__}, or an object of it"
        )
    version = getattr(item, "interface", None)
    if version != INTERFACE or isinstance(version, bool):
        made_for = "no version of the interface" if version is None else f"version {version!r}"
        raise UnusablePlugin(
            f"it was made for {made_for}, and this service has version {INTERFACE}: the attribute interface "
            f"must be {INTERFACE}"
        )
    name = getattr(item, "name", None)
    if name != entry.name:
        raise UnusablePlugin(f"its attribute name is {name!r}, and its entry point is {entry.name!r}")
    return item


def log_plugins(plugins: Iterable[Plugin]) -> None:
    """Log a line for each plug-in, when a process starts."""
    for plugin in plugins:
        fields = {"group": plugin.group, "name": plugin.name, "package": plugin.package}
        if plugin.reason is None:
            log.info("plugin.loaded", **fields)
        else:
            log.error("plugin.refused", **fields, reason=plugin.reason)
