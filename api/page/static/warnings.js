// What a finished file has instead of some values, in words.

import { has, t } from "./messages.js";

/** The warnings of a job in sentences. */
export const warnings = (found) =>
  Object.entries(found ?? {}).map(([name, count]) => (has(`warnings.${name}`) ? t(`warnings.${name}`, { count }) : t("warnings.other", { name: name.replaceAll("_", " "), count })));
