// The options of a file: those of its format, and how captions and numbers are written.

import { checkbox, choice, element, field, hasOption } from "./dom.js";
import { hasLabels, languagesOf } from "./labels.js";
import { language as pageLanguage, locale as pageLocale, t } from "./messages.js";

const COMPRESSIONS = [["none", t("page.options.no_compression")], ["gzip", "gzip"], ["zstd", "Zstandard"]];
const DELIMITERS = [[",", t("page.options.comma")], [";", t("page.options.semicolon")], ["\t", t("page.options.tab")], ["|", t("page.options.bar")]];
const PAGES = ["A4", "A3", "LETTER", "LEGAL", "TABLOID"].map((name) => [name, name]);
const CAPTIONS = [["names", t("page.options.names")], ["labels", t("page.options.labels")]];
const LOCALES = ["da-DK", "de-AT", "de-CH", "de-DE", "en-GB", "en-US", "es-ES", "fr-FR", "it-IT", "ja-JP", "nl-NL", "pl-PL", "pt-BR", "sv-SE"];

const isCsv = (format) => format.name === "csv";
const isPdf = (format) => format.name === "pdf";
const EXAMPLE = { day: Date.UTC(2026, 11, 31), number: 1234.5 };

/** The formats and datasets that have the option, and the service's default, which is not sent. `first`: what the form begins with. */
const OPTIONS = {
  headers: { label: t("page.options.headers"), fits: (_, dataset) => hasLabels(dataset), usual: "names", first: (_, { name }) => (name === "excel" || name === "pdf" ? "labels" : "names"), make: () => choice(CAPTIONS) },
  language: { label: t("page.options.language"), fits: () => true, usual: "", first: ownLanguage, make: languages },
  locale: { label: t("page.options.locale"), brief: t("page.options.locale_brief"), fits: () => true, usual: "", first: (_, format) => firstLocale(format), make: locales },
  compression: { label: t("page.options.compression"), fits: (format) => format.compressible, usual: "none", make: () => choice(COMPRESSIONS) },
  delimiter: { label: t("page.options.delimiter"), brief: t("page.options.delimiter_brief"), fits: isCsv, usual: ",", first: () => separator(navigator.language), make: () => choice(DELIMITERS) },
  null: { label: t("page.options.null"), fits: isCsv, usual: "", make: () => element("input", { maxLength: 20, pattern: "[A-Za-z0-9_\\\\<>\\(\\)\\-.\\/]*", title: t("page.options.null_hint") }) },
  header: { label: t("page.options.header"), fits: isCsv, usual: true },
  bom: { label: t("page.options.bom"), brief: t("page.options.bom_brief"), fits: isCsv, usual: false, first: () => true },
  guard_formulas: { label: t("page.options.guard_formulas"), fits: isCsv, usual: true },
  title: { label: t("page.options.file_title"), fits: isPdf, usual: "", make: () => element("input", { maxLength: 200 }) },
  page_size: { label: t("page.options.page_size"), fits: isPdf, usual: "A4", make: () => choice(PAGES) },
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

const base = (tag) => tag.split("-")[0];

/** The languages of labels, and those of this page. */
function languages(dataset) {
  const own = [...document.querySelectorAll("#language option")].map(({ value }) => value);
  const tags = [...new Set([...languagesOf(dataset), ...own])].sort();
  return choice([["", t("page.options.no_language")], ...tags.map((tag) => [tag, nameOf(tag)])]);
}

/** The language of the page, unless the service takes it anyway. */
function ownLanguage(dataset) {
  const known = languagesOf(dataset);
  const isUsual = pageLanguage === "en" && ["", "en"].includes(base(ownLocale()));
  return [pageLocale, base(pageLocale)].find((tag) => known.includes(tag)) ?? (isUsual ? "" : pageLanguage);
}

/** The locale of the browser, or one of the same language. */
function ownLocale() {
  const own = navigator.language.replaceAll("_", "-");
  const language = base(own);
  return [own, `${language}-${language.toUpperCase()}`].find((tag) => LOCALES.includes(tag)) ?? LOCALES.find((tag) => base(tag) === language) ?? "";
}

/** A csv has one where spreadsheets take a decimal point for a separator of thousands. */
function firstLocale({ name }) {
  const own = ownLocale();
  return name === "excel" || name === "pdf" || (name === "csv" && own && separator(own) === ";") ? own : "";
}

function nameOf(tag) {
  try {
    return new Intl.DisplayNames([pageLocale], { type: "language" }).of(tag);
  } catch {
    return tag;
  }
}

/** The locales by their names, each with a day and a number as it writes them. */
function locales() {
  const named = LOCALES.map((tag) => [tag, nameOf(tag)]).sort(([, one], [, other]) => one.localeCompare(other, pageLocale));
  return choice([["", t("page.options.no_locale")], ...named.map(([tag, name]) => [tag, t("page.options.locale_example", { name, example: example(tag) })])]);
}

function example(tag) {
  return [
    new Intl.DateTimeFormat(tag, { day: "2-digit", month: "2-digit", year: "numeric", timeZone: "UTC" }).format(EXAMPLE.day),
    new Intl.NumberFormat(tag, { minimumFractionDigits: 2 }).format(EXAMPLE.number),
  ].join(" · ");
}

const get = (control) => (control.type === "checkbox" ? control.checked : control.value);

function put(control, value) {
  if (control.type === "checkbox") control.checked = value;
  else {
    // Other programs have more of them.
    if (control.options && !hasOption(control, value)) control.append(element("option", { value }, value));
    control.value = value;
  }
}

export class Options {
  constructor() {
    this.controls = {};
    this.place = element("div", { class: "options" });
    this.summary = element("span");
    this.element = element("details", {}, element("summary", {}, t("page.options.title"), this.summary), this.place);
  }

  /** Show the options of a format and a dataset. With `keep`, what the old ones have as well stays as it is. */
  use(format, dataset, { keep = true } = {}) {
    const before = keep ? this.controls : {};
    const last = this.first ?? {};
    this.controls = {};
    this.first = {};
    const parts = Object.entries(OPTIONS)
      .filter(([, option]) => option.fits(format, dataset))
      .map(([name, option]) => {
        const label = option.make ? null : checkbox(option.label, {});
        const control = (this.controls[name] = label ? label.firstChild : option.make(dataset));
        this.first[name] = option.first ? option.first(dataset, format) : option.usual;
        // A value that the user has not changed is the default again.
        put(control, before[name] && get(before[name]) !== last[name] ? get(before[name]) : this.first[name]);
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
      if (value === this.first[name]) return [];
      const { label, brief = label } = OPTIONS[name];
      const ticked = value ? t("page.options.yes") : t("page.options.no");
      const shown = control.type === "checkbox" ? ticked : (control.selectedOptions?.[0].textContent ?? value);
      return t("page.options.changed", { option: brief, value: shown });
    });
    this.summary.textContent = changed.join(", ") || t("page.options.usual");
  }
}
