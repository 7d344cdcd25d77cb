// Labels of datasets, columns and parameters, in the language of the page.

import { locale } from "./messages.js";

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

const titles = new Map();

/** Remember the labels of the datasets, for the lists of exports and schedules. */
export function learn(datasets) {
  titles.clear();
  for (const dataset of datasets) titles.set(dataset.name, labelOf(dataset));
}

/** What people call a dataset. */
export const titleOf = (name) => titles.get(name) ?? name;
