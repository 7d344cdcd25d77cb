"""Checks the Helm chart and writes what it renders: ``make chart``.

It needs Helm as a library and the JSON schemas of Kubernetes, which ``requirements/chart.txt`` locks for an
environment of its own. The files that it writes are tested without both.
"""

import hashlib
import importlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "deploy" / "helm"
RENDERED = ROOT / "tests" / "unit" / "data" / "chart"
RELEASE, NAMESPACE = "exporter", "exporter"
EXAMPLES = ("values.yaml", "everything.yaml")
"""Files of ``examples``. Each is rendered with those before it, so the last one has every part."""

CUSTOM = {"ScaledObject", "TriggerAuthentication", "PodMonitor"}
"""Kinds that other projects bring to a cluster; Kubernetes has no schemas of them."""


def digest() -> str:
    """Return a digest of all files that the rendering depends on."""
    found = hashlib.sha256()
    for path in sorted(path for path in CHART.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(CHART)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def merged(*values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as Helm merges files: later ones come first, and objects are merged."""
    result: dict[str, Any] = {}
    for each in values:
        for key, value in each.items():
            old = result.get(key)
            both = isinstance(value, dict) and isinstance(old, dict)
            result[key] = merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def examples() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the values of each example."""
    values: dict[str, Any] = {}
    for name in EXAMPLES:
        values = merged(values, yaml.safe_load((CHART / "examples" / name).read_text("utf-8")))
        yield name, values


def main() -> int:
    """Lint, render, validate and write; return 1 if there is a fault."""
    helm = importlib.import_module("helm_python")
    kubernetes = importlib.import_module("kubernetes_validate")
    faults = []
    RENDERED.mkdir(exist_ok=True)
    with helm.Chart.load(str(CHART)) as chart:
        for name, values in examples():
            chart.validate_schema(values)
            faults += [f"{name}: {fault}" for fault in helm.lint(str(CHART), values, strict=True)["errors"]]
            rendered: dict[str, str] = chart.render(values, name=RELEASE, namespace=NAMESPACE)
            texts = [text for path, text in sorted(rendered.items()) if path.endswith(".yaml")]
            manifests = [found for text in texts for found in yaml.safe_load_all(text) if found]
            for manifest in manifests:
                faults += [f"{name}: {fault}" for fault in _faults(kubernetes, manifest)]
            manifests.sort(key=lambda manifest: (manifest["kind"], manifest["metadata"]["name"]))
            content = yaml.safe_dump_all(manifests, sort_keys=False, width=110)
            (RENDERED / name).write_text(f"# make chart writes this. Chart: {digest()}\n{content}", "utf-8")
            print(f"chart: {len(manifests)} manifests of examples/{name} are valid")
    for fault in faults:
        print(f"chart: {fault}", file=sys.stderr)
    return 1 if faults else 0


def _faults(kubernetes: Any, manifest: dict[str, Any]) -> Iterator[str]:
    if manifest["kind"] in CUSTOM:
        return
    try:
        kubernetes.validate(manifest, kubernetes.latest_version(), strict=True)
    except kubernetes.ValidationError as error:
        yield f"{manifest['kind']} {manifest['metadata']['name']}: {error.message}"


if __name__ == "__main__":
    sys.exit(main())
