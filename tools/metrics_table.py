"""Writes the site's page of all metrics, from their definitions."""

from prometheus_client.metrics import MetricWrapperBase

from stream_app.observability import metrics

_HEAD = """# Metrics

What each process measures, as Prometheus reads it. A histogram has the series `_bucket`, `_sum` and `_count`.
Where they are read, the dashboard and the alerts stand in [observability.md](observability.md).

| metric | type | labels | meaning |
| --- | --- | --- | --- |
"""


def document() -> str:
    """Return the page, one row for each metric, by name."""
    found = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
    rows = {}
    for metric in found:
        (family,) = metric.describe()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        meaning = family.documentation.replace("|", "\\|")
        rows[name] = f"| `{name}` | {family.type} | {labels} | {meaning} |\n"
    return _HEAD + "".join(rows[name] for name in sorted(rows))
