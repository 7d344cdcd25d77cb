// Lists that are read again and again, and that keep the focus and what was opened.

import { today } from "./words.js";

/**
 * Show `items` in `list`. An element stays while its item is the same on the same day, or while it has the focus.
 * An item that cannot be shown hides no other one. The first error is returned: what else shows the items comes first.
 */
export function update(list, items, id, make) {
  const day = today(); // an element can say "today"
  const known = new Map([...list.children].map((element) => [element.dataset.key, element]));
  const failures = [];
  const shown = items.flatMap((item) => {
    const key = String(id(item));
    const text = day + JSON.stringify(item);
    const old = known.get(key);
    if (old && (old.item === text || old.contains(document.activeElement))) return old;
    let element;
    try {
      element = make(item);
    } catch (failure) {
      failures.push(failure);
      return [];
    }
    element.dataset.key = key;
    element.item = text;
    return element;
  });
  for (const element of [...list.children]) if (!shown.includes(element)) element.remove();
  shown.forEach((element, place) => {
    if (list.children[place] !== element) list.insertBefore(element, list.children[place] ?? null);
  });
  return failures[0];
}
