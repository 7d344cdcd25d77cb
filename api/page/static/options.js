// The options of a file: those of its format, and how captions and numbers are written.

import { choice, field, h, tick } from "./dom.js";
import { hasLabels, languagesOf } from "./labels.js";

const COMPRESSIONS = [["none", "None"], ["gzip", "gzip"], ["zstd", "Zstandard"]];
const DELIMITERS = [[",", "Comma"], [";", "Semicolon"], ["\t", "Tab"], ["|", "Bar"]];
const PAGES = ["A4", "A3", "LETTER", "LEGAL", "TABLOID"].map((name) => [name, name]);
const CAPTIONS = [["names", "Names of the columns"], ["labels", "Labels"]];
const LOCALES = ["da-DK", "de-AT", "de-CH", "de-DE", "en-GB", "en-US", "es-ES", "fr-FR", "it-IT", "ja-JP", "nl-NL", "pl-PL", "pt-BR", "sv-SE"];

const isCsv = (format) => format.name === "csv";
const isPdf = (format) => format.name === "pdf";

/** The formats, and datasets, that have the option, and the default of the service, which is not sent. `first` is what the form begins with, if it differs. */
const OPTIONS = {
  headers: { label: "Captions", fits: (_, dataset) => hasLabels(dataset), usual: "names", make: () => choice(CAPTIONS) },
  language: { label: "Language of the labels", fits: (_, dataset) => languagesOf(dataset).length > 0, usual: "", first: ownLanguage, make: languages },
  locale: { label: "Numbers and dates as in", fits: () => true, usual: "", make: locales },
  compression: { label: "Compression", fits: (format) => format.compressible, usual: "none", make: () => choice(COMPRESSIONS) },
  delimiter: { label: "Separator of columns", brief: "Separator", fits: isCsv, usual: ",", first: () => separator(navigator.language), make: () => choice(DELIMITERS) },
  null: { label: "Text for missing values", fits: isCsv, usual: "", make: () => h("input", { maxLength: 20, pattern: "[A-Za-z0-9_\\\\<>\\(\\)\\-.\\/]*", title: "letters, digits and _ \\ < > ( ) - . /" }) },
  header: { label: "First line has the column names", fits: isCsv, usual: true },
  bom: { label: "Show special characters such as ä, é and € right in Excel (byte order mark)", brief: "Byte order mark", fits: isCsv, usual: false, first: () => true },
  guard_formulas: { label: "Prevent texts from running as formulas", fits: isCsv, usual: true },
  title: { label: "Title", fits: isPdf, usual: "", make: () => h("input", { maxLength: 200 }) },
  page_size: { label: "Paper", fits: isPdf, usual: "A4", make: () => choice(PAGES) },
};

/** The separator that spreadsheets of this language expect. */
function separator(language) {
  try {
    const parts = new Intl.NumberFormat(language.replaceAll("_", "-")).formatToParts(0.5);
    return parts.some(({ type, value }) => type === "decimal" && value === ",") ? ";" : ",";
  } catch {
    return ",";
  }
}

function languages(dataset) {
  return choice([["", "The general labels"], ...languagesOf(dataset).map((tag) => [tag, nameOf(tag)])]);
}

/** The language of the browser, or the nearest more general one, if the dataset has it. */
function ownLanguage(dataset) {
  const known = languagesOf(dataset);
  return [navigator.language, navigator.language.split("-")[0]].find((tag) => known.includes(tag)) ?? "";
}

function nameOf(tag) {
  try {
    return new Intl.DisplayNames(["en"], { type: "language" }).of(tag);
  } catch {
    return tag;
  }
}

function locales() {
  const input = h("input", { spellcheck: false, autocomplete: "off", placeholder: "no locale", pattern: "[A-Za-z]{2,3}([_\\-][A-Za-z0-9]{2,8})*", title: "a locale such as de-DE" });
  input.setAttribute("list", "locales");
  return input;
}

const get = (control) => (control.type === "checkbox" ? control.checked : control.value);

function put(control, value) {
  if (control.type === "checkbox") control.checked = value;
  else control.value = value;
}

export class Options {
  constructor() {
    this.controls = {};
    this.place = h("div", { class: "options" });
    this.summary = h("span");
    const suggestions = h("datalist", { id: "locales" }, LOCALES.map((value) => h("option", { value })));
    this.element = h("details", {}, h("summary", {}, "Options", this.summary), this.place, suggestions);
  }

  /** Show the options of a format and a dataset. With `keep`, what the old ones have as well stays as it is. */
  use(format, dataset, { keep = true } = {}) {
    const before = keep ? this.controls : {};
    this.controls = {};
    this.first = {};
    const parts = Object.entries(OPTIONS)
      .filter(([, option]) => option.fits(format, dataset))
      .map(([name, option]) => {
        const label = option.make ? null : tick(option.label, {});
        const control = (this.controls[name] = label ? label.firstChild : option.make(dataset));
        this.first[name] = option.first ? option.first(dataset) : option.usual;
        put(control, before[name] && name !== "language" ? get(before[name]) : this.first[name]);
        return label ?? field(option.label, control);
      });
    const { locale, delimiter } = this.controls;
    if (delimiter) locale.addEventListener("change", () => put(delimiter, separator(get(locale) || navigator.language)));
    this.place.replaceChildren(...parts);
  }

  /** Return the options that differ from the defaults of the service. */
  read() {
    const found = {};
    for (const [name, control] of Object.entries(this.controls)) {
      const value = get(control);
      if (name === "language" && get(this.controls.headers) !== "labels") continue;
      // With a locale the service has another default for the separator than without.
      if (value !== OPTIONS[name].usual || (name === "delimiter" && get(this.controls.locale))) found[name] = value;
    }
    return found;
  }

  /** Show the options of a job. */
  write(options) {
    for (const [name, control] of Object.entries(this.controls)) put(control, options?.[name] ?? OPTIONS[name].usual);
    const { locale, delimiter } = this.controls;
    if (delimiter && get(locale) && !options.delimiter) put(delimiter, separator(get(locale)));
  }

  /** Show in the closed part what is in it. */
  summarize() {
    const changed = Object.entries(this.controls).flatMap(([name, control]) => {
      const value = get(control);
      if (value === this.first[name] || (name === "language" && get(this.controls.headers) !== "labels")) return [];
      const { label, brief = label } = OPTIONS[name];
      return `${brief}: ${control.type === "checkbox" ? (value ? "yes" : "no") : (control.selectedOptions?.[0].textContent ?? value)}`;
    });
    this.summary.textContent = changed.join(", ") || "usual";
  }
}
