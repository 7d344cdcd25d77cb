// What a finished file has instead of some values, in words.

import { count } from "./words.js";

const several = (number, one, more) => `${count(number)} ${number === 1 ? one : more}`;

/** By the names of the warnings in a job: a sentence. */
const TEXTS = {
  replaced_characters: (number) =>
    `${several(number, "character", "characters")} could not be printed and ${number === 1 ? "is" : "are"} shown by code. Choose Excel or CSV to keep the text`,
  cut_cells: (number) => `${several(number, "text was", "texts were")} too long for a cell and cut. Choose CSV to keep the whole text`,
  escaped_characters: (number) => `${several(number, "control character is", "control characters are")} written by code`,
  guarded_formulas: (number) => `${several(number, "text begins", "texts begin")} like a formula and got an apostrophe in front`,
  unrepresentable_values: (number) => `${several(number, "value does", "values do")} not fit the column of the file and ${number === 1 ? "is" : "are"} empty`,
  row_level_security: () => "The database can hide rows of this table from the export",
  split_automatically: (number) => `The export was divided into ${count(number)} files, because one would be too large`,
};

/** The warnings of a job in sentences. */
export const warnings = (found) =>
  Object.entries(found ?? {}).map(([name, number]) => TEXTS[name]?.(number) ?? `${name.replaceAll("_", " ")}: ${count(number)}`);
