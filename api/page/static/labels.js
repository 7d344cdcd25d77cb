// Labels of datasets, columns and parameters, in the language of the page.

import { locale, part } from "./messages.js";

/** The label in the language, or in the nearest more general one, or else the general label, or else the name. */
export function labelOf({ name, label, labels }, language = locale) {
  const known = new Map(Object.entries(labels ?? {}).map(([tag, text]) => [tag.toLowerCase(), text]));
  for (const parts = language.toLowerCase().split("-"); parts.length; parts.pop()) {
    const found = known.get(parts.join("-"));
    if (found) return found;
  }
  return label ?? name;
}

/** The languages in which a dataset or its columns have labels. */
export function languagesOf({ labels, columns }) {
  return [...new Set([labels, ...columns.map((column) => column.labels)].flatMap((item) => Object.keys(item ?? {})))].sort();
}

export const hasLabels = (dataset) => [dataset, ...dataset.columns].some(({ label, labels }) => label || Object.keys(labels ?? {}).length);

/** The columns that filters can name: those of a dataset, or those of a bundle's datasets, such as `ledger.kind`. */
export function fieldsOf({ bundle, columns }, datasets) {
  if (!bundle) return columns;
  return membersOf(bundle, datasets).flatMap((one) =>
    one.columns.map((column) => ({ ...column, name: `${one.name}.${column.name}`, label: `${labelOf(one)}: ${labelOf(column)}`, labels: {} })),
  );
}

/** The datasets of a bundle that the user can see. */
export const membersOf = (bundle, datasets) => bundle.datasets.map((name) => datasets.get(name)).filter(Boolean);

const datasetLabels = new Map();
const destinationLabels = new Map();

/** Remember the datasets and destinations, for the lists of exports and schedules. */
export function rememberLabels(datasets, destinations) {
  datasetLabels.clear();
  for (const one of destinations) destinationLabels.set(one.name, labelOf(one));
  const byName = new Map(datasets.map((dataset) => [dataset.name, dataset]));
  for (const dataset of datasets) {
    const columns = new Map(fieldsOf(dataset, byName).map((column) => [column.name, labelOf(column)]));
    datasetLabels.set(dataset.name, { title: labelOf(dataset), columns, zone: dataset.timezone ?? "UTC" });
  }
}

/** What people call a dataset. */
export const titleOf = (name) => datasetLabels.get(name)?.title ?? name;

/** What people call a destination. */
export const destinationOf = (name) => destinationLabels.get(name) ?? name;

/** The module about destinations, which only some users need. */
export const destinationModule = () => part("destinations", () => import("./destinations.js"));

/** What people call a column of a dataset. */
export const columnOf = (dataset, name) => datasetLabels.get(dataset)?.columns.get(name) ?? name;

/** The time zone of the days of a dataset. */
export const zoneOf = (dataset) => datasetLabels.get(dataset)?.zone ?? "UTC";
