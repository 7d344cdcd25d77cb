// Elements without markup: every text becomes a text node, so nothing is ever parsed as HTML.

import { clearOnRecovery } from "./connection.js";
import { t } from "./messages.js";
import { sentence } from "./words.js";

/** An element. Properties named on… are listeners, those with a hyphen or unknown are attributes. */
export function element(tag, properties = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) created.addEventListener(name.slice(2), value);
    else if (name === "class") created.className = value;
    else if (name in created && !name.includes("-")) created[name] = value;
    else created.setAttribute(name, value);
  }
  const parts = children.flat().filter((child) => child || child === 0);
  // With a space between them, because its name is read as one text.
  created.append(...(tag === "summary" ? parts.flatMap((part, index) => (index ? [" ", part] : [part])) : parts));
  return created;
}

export const byId = (id) => document.getElementById(id);

let ids = 0;

/** A label and its control, one below the other; `hint` is read out with the control. */
export function field(text, control, hint) {
  control.id ||= `field-${(ids += 1)}`;
  const help = hint && element("span", { class: "hint", id: `${control.id}-hint` }, hint);
  if (help) control.setAttribute("aria-describedby", help.id);
  return element("div", { class: "field" }, element("label", { htmlFor: control.id }, text), control, help);
}

/** A select over [value, text] pairs. */
export function choice(pairs, properties = {}) {
  return element("select", properties, pairs.map(([value, text]) => element("option", { value }, text)));
}

export const hasOption = (select, value) => [...select.options].some((option) => option.value === value);

/** A checkbox with its text. */
export function checkbox(text, properties, note) {
  const box = element("input", { type: "checkbox", ...properties });
  return element("label", { class: "tick" }, box, element("span", {}, text), note && element("small", {}, note));
}

/** A button that calls `act` with itself and the event. */
export function button(text, act, look = "quiet") {
  return element("button", { type: "button", class: look, onclick: (event) => act(event.currentTarget, event) }, text);
}

/** Give a control that is not valid a text of this page, in the place of the browser's. */
export function explainInvalid(control) {
  if (control.explained && control.validationMessage === control.explained) control.setCustomValidity("");
  control.explained = "";
  const { validity } = control;
  if (!control.willValidate || validity.valid || validity.customError) return;
  if (validity.valueMissing) control.explained = t("page.form.missing");
  else if (validity.rangeUnderflow || validity.rangeOverflow) control.explained = control.max ? t("page.form.between", { least: control.min, most: control.max }) : t("page.form.at_least", { least: control.min });
  else control.explained = control.title ? t("page.form.expected", { what: control.title }) : t("page.form.not_valid");
  control.setCustomValidity(control.explained);
}

/** An element for error messages, which `showMessage` fills. */
export const errorMessage = () => element("p", { class: "alert", role: "alert", hidden: true });

/** Show or remove a message. */
export function showMessage(place, text) {
  const shown = sentence(text ?? "");
  if (place.textContent !== shown) place.textContent = shown; // otherwise it would be read out again
  place.hidden = !text;
}

/** Show why something failed; nothing if it was given up. */
function showError(place, failure) {
  if (failure.name !== "AbortError") showMessage(place, failure.message);
}

/** Show why something failed that the page repeats. A message about the connection vanishes when the service answers again. */
export function showRecoverableError(place, failure) {
  showError(place, failure);
  if (failure.away) clearOnRecovery(place, place.textContent);
}

/** Whether the focus can move: it is nowhere, or on the button that was pressed. Otherwise users are at work elsewhere. */
export const canMoveFocus = () => document.activeElement === document.body || Boolean(document.activeElement?.ariaBusy);

/** Move the focus to an element, unless users are at work elsewhere. */
export function focusIfIdle(target) {
  if (canMoveFocus()) target.focus({ preventScroll: true });
}

/** Show or hide a button. The focus of one that is hidden moves to `next`. */
export function showButton(own, shown, next) {
  if (!shown && own === document.activeElement) next?.focus({ preventScroll: true });
  own.hidden = !shown;
}

/** Give a button, whose text many buttons have, a name of its own: its text and that of other elements. */
export function nameWith(own, ...others) {
  for (const named of [own, ...others]) named.id ||= `part-${(ids += 1)}`;
  own.setAttribute("aria-labelledby", [own, ...others].map((element) => element.id).join(" "));
  return own;
}

/** Name the buttons of a card by their text, its heading and `more`, because other cards have such buttons too. */
export function nameButtons(card, more) {
  const unseen = element("span", { hidden: true }, more);
  card.append(unseen);
  for (const own of card.querySelectorAll(".buttons button")) if (!own.ariaLabel) nameWith(own, card.querySelector("h3"), unseen);
  return card;
}

/** A button that asks for confirmation before it acts. Neither a double click nor a key that is held down is one. */
export function confirmButton(text, question, act) {
  let timer = 0;
  const own = button(text, press);
  own.onblur = reset;
  own.onkeydown = (event) => {
    if (event.repeat && event.key === "Enter") event.preventDefault();
  };
  function reset() {
    clearTimeout(timer);
    timer = 0;
    own.textContent = text;
    own.classList.remove("danger");
  }
  function press(_, event) {
    if (event.detail > 1) return;
    if (timer) {
      reset();
      act(own);
      return;
    }
    own.textContent = question;
    own.classList.add("danger");
    timer = setTimeout(reset, 4000);
  }
  return own;
}

/** Run `act` while the button is marked as busy; errors are shown in `place`, and stay until the next press. */
export async function busy(button, place, act) {
  if (button.ariaBusy) return;
  button.ariaBusy = "true"; // not disabled: that would take away the focus
  showMessage(place, "");
  try {
    await act();
  } catch (failure) {
    showError(place, failure);
  } finally {
    button.ariaBusy = null;
  }
}

/** Read a list: `act` runs again if it was asked for meanwhile, because the filters have changed. */
export function runAgainIfRequested(list, place, act) {
  list.isRequested = true;
  return busy(list, place, async () => {
    while (list.isRequested) {
      list.isRequested = false;
      await act();
    }
  });
}
