// Texts in the language of the page, which the service chooses by the browser's or by the user's choice.

const CHOICE = "language"; // the cookie with the user's choice, which the service reads
const YEAR = 365 * 24 * 3600; // seconds
const ATTEMPTS = 3;
const GATEWAY = new Set([502, 503, 504]); // a proxy answers, because the service does not
const ENGLISH = "en-GB"; // for users who chose English without having it in the browser

export const language = document.documentElement.lang;

/** The locale of numbers and dates: that of the browser for the language, or a usual one. */
export const locale = navigator.languages.find((tag) => tag.split("-")[0] === language) ?? (language === "en" ? ENGLISH : language);

const numbers = new Intl.NumberFormat(locale);
const plurals = new Intl.PluralRules(language);
const messages = await read(language);
const parts = {};

async function read(name, attempt = 1) {
  try {
    const answer = await fetch(new URL(`messages/${name}.json`, import.meta.url));
    if (answer.ok) return await answer.json();
    throw Object.assign(new Error(answer.status), { status: answer.status });
  } catch (error) {
    if (attempt === ATTEMPTS) throw error;
    await new Promise((resolve) => setTimeout(resolve, attempt * 1000));
    return read(name, attempt + 1);
  }
}

/**
 * Load what only some users need: the messages of a part of the page, then the module that `load` imports.
 *
 * The error is `away` if there was no answer. It is `unloaded` if the part does not fit this page or its import has
 * failed: browsers keep that until the page is loaded again, whether the service answers or not.
 */
export async function part(name, load) {
  try {
    parts[name] ??= read(`${language}/${name}`).then((found) => Object.assign(messages, found));
    await parts[name];
  } catch (error) {
    delete parts[name];
    const away = GATEWAY.has(error.status) || (!error.status && error instanceof TypeError);
    throw away ? Object.assign(new Error(t("page.problems.unreachable")), { away }) : unloaded();
  }
  try {
    return await load();
  } catch {
    throw unloaded();
  }
}

const unloaded = () => Object.assign(new Error(t("page.problems.unloaded")), { unloaded: true });

/** The text of a message. Numbers are written as in the locale; `count` chooses the form of the message. */
export function t(key, values = {}) {
  const found = messages[key] ?? key;
  const form = typeof found === "string" ? found : (found[plurals.select(values.count)] ?? found.other);
  return form.replace(/\{(\w+)\}/g, (_, name) => (typeof values[name] === "number" ? numbers.format(values[name]) : values[name]));
}

/** Whether there is such a message. */
export const has = (key) => key in messages;

/**
 * What is wrong, in the language of the page, by the code of an error. The service's own text is English and
 * more exact, so it stays in English, and where the code is not known.
 */
export function problemText({ code, message, field }) {
  if (language === "en" || !has(`errors.${code}`)) return message;
  const text = t(`errors.${code}`);
  const about = subject(message, field);
  return about ? t("page.problems.of_field", { text: text.replace(/\.$/, ""), field: about }) : text;
}

/** What the service's own text is about: a filter, a parameter, or else what it has in quotation marks. */
function subject(message, field) {
  const place = field ?? /^(\w+(?:\.[\w-]+)+): /.exec(message)?.[1] ?? "";
  const [, name] = /^(?:filters|parameters|options)\.(.+)/.exec(place) ?? [];
  return name ?? /(?<!\w)'([^']{1,100})'/.exec(message)?.[1] ?? field;
}

/** Remember the user's choice of a language, and show the page in it. */
export function choose(chosen) {
  document.cookie = `${CHOICE}=${chosen}; path=${new URL("..", import.meta.url).pathname}; max-age=${YEAR}; samesite=lax`;
  location.reload();
}
