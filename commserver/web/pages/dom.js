/** Small helpers for pages. Text goes in as text: nothing here reads markup. */

/**
 * Make an element. Properties whose name has a dash are attributes; `on…` are listeners.
 * @param {string} tag @param {Record<string, any>} props @param {...(Node|string)} children
 */
export function el(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role" || name === "for") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** Change a text only if it is another: what has not changed is not read aloud again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Something that happens once, a moment after it was last asked for. */
export function soon(act, milliseconds) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, milliseconds);
  };
}
