// Elements without markup: every text becomes a text node, so nothing is ever parsed as HTML.

import { passing } from "./connection.js";
import { sentence } from "./words.js";

/** An element. Properties named on… are listeners, those with a hyphen or unknown are attributes. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element && !name.includes("-")) element[name] = value;
    else element.setAttribute(name, value);
  }
  const parts = children.flat().filter((child) => child || child === 0);
  // With a space between them, because its name is read as one text.
  element.append(...(tag === "summary" ? parts.flatMap((part, index) => (index ? [" ", part] : [part])) : parts));
  return element;
}

export const byId = (id) => document.getElementById(id);

let ids = 0;

/** A label and its control, one below the other; `hint` is read out with the control. */
export function field(text, control, hint) {
  control.id ||= `field-${(ids += 1)}`;
  const help = hint && h("span", { class: "hint", id: `${control.id}-hint` }, hint);
  if (help) control.setAttribute("aria-describedby", help.id);
  return h("div", { class: "field" }, h("label", { htmlFor: control.id }, text), control, help);
}

/** A select over [value, text] pairs. */
export function choice(pairs, properties = {}) {
  return h("select", properties, pairs.map(([value, text]) => h("option", { value }, text)));
}

/** A box to tick, with its text. */
export function tick(text, properties, note) {
  const box = h("input", { type: "checkbox", ...properties });
  return h("label", { class: "tick" }, box, h("span", {}, text), note && h("small", {}, note));
}

/** A button that calls `act` with itself and the event. */
export function button(text, act, look = "quiet") {
  return h("button", { type: "button", class: look, onclick: (event) => act(event.currentTarget, event) }, text);
}

/** An element for error messages, which `say` fills. */
export const alert = () => h("p", { class: "alert", role: "alert", hidden: true });

/** Show or remove a message. */
export function say(element, text) {
  const shown = sentence(text ?? "");
  if (element.textContent !== shown) element.textContent = shown; // otherwise it would be read out again
  element.hidden = !text;
}

/** Show why something failed; nothing if it was given up. */
function tell(place, failure) {
  if (failure.name !== "AbortError") say(place, failure.message);
}

/** Show why something failed that the page repeats. A message about the connection vanishes when the service answers again. */
export function report(place, failure) {
  tell(place, failure);
  if (failure.away) passing(place, place.textContent);
}

/** Whether the focus can move: it is nowhere, or on the button that was pressed. Otherwise users are at work elsewhere. */
export const isFree = () => document.activeElement === document.body || Boolean(document.activeElement?.ariaBusy);

/** Move the focus to an element, unless users are at work elsewhere. */
export function lead(element) {
  if (isFree()) element.focus({ preventScroll: true });
}

/** Show or hide a button. The focus of one that is hidden moves to `next`. */
export function reveal(own, shown, next) {
  if (!shown && own === document.activeElement) next?.focus({ preventScroll: true });
  own.hidden = !shown;
}

/** Give a button, whose text many buttons have, a name of its own: its text and that of other elements. */
export function nameWith(own, ...others) {
  for (const element of [own, ...others]) element.id ||= `part-${(ids += 1)}`;
  own.setAttribute("aria-labelledby", [own, ...others].map((element) => element.id).join(" "));
  return own;
}

/** Name the buttons of a card by their text, its heading and `more`, because other cards have such buttons too. */
export function nameButtons(card, more) {
  const unseen = h("span", { hidden: true }, more);
  card.append(unseen);
  for (const own of card.querySelectorAll(".buttons button")) if (!own.ariaLabel) nameWith(own, card.querySelector("h3"), unseen);
  return card;
}

/** A button that asks for confirmation before it acts. Neither a double click nor a key that is held down is one. */
export function twice(text, question, act) {
  let timer = 0;
  const own = button(text, press);
  own.onblur = calm;
  own.onkeydown = (event) => {
    if (event.repeat && event.key === "Enter") event.preventDefault();
  };
  function calm() {
    clearTimeout(timer);
    timer = 0;
    own.textContent = text;
    own.classList.remove("danger");
  }
  function press(_, event) {
    if (event.detail > 1) return;
    if (timer) {
      calm();
      act(own);
      return;
    }
    own.textContent = question;
    own.classList.add("danger");
    timer = setTimeout(calm, 4000);
  }
  return own;
}

/** Run `act` while the button is marked as busy; errors are shown in `place`, and stay until the next press. */
export async function busy(button, place, act) {
  if (button.ariaBusy) return;
  button.ariaBusy = "true"; // not disabled: that would take away the focus
  say(place, "");
  try {
    await act();
  } catch (failure) {
    tell(place, failure);
  } finally {
    button.ariaBusy = null;
  }
}

/** Read a list: `act` runs again if it was asked for meanwhile, because the filters have changed. */
export function reread(list, place, act) {
  list.wanted = true;
  return busy(list, place, async () => {
    while (list.wanted) {
      list.wanted = false;
      await act();
    }
  });
}
