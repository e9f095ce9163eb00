// Elements, and the browser features that every part of the dashboard uses.
// Text is always inserted as text: nothing here turns external text into markup.

// Make an element. Attributes by name: `on...` are listeners, `true` is an attribute without a value, and null, undefined
// and false are left out. Children are nodes or text; null and false are left out.
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Make a button with a tooltip that says what it does.
function button(text, title, onclick, attributes = {}) {
  return el("button", { type: "button", class: "cmemu-button", title, onclick, ...attributes }, text);
}

// Make a badge: a word beside a dot of its colour.
function badge({ badge: text, tone }) {
  return el(
    "span",
    { class: `cmemu-badge cmemu-${tone}` },
    el("span", { class: "cmemu-dot", "aria-hidden": "true" }, "●"),
    el("bdi", {}, text),
  );
}

let idCount = 0;

// Return an id that no other element has: labels, tabs and their panels refer to each other by it.
function uniqueId(kind) {
  idCount += 1;
  return `cmemu-${kind}-${idCount}-${Math.random().toString(36).slice(2, 8)}`;
}

// Set an element's text. An unchanged text is not set again, so that a selection in it stays.
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Set an element's attribute; an unchanged one is not set again.
function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

// Make invisible characters visible: control characters as their symbols, and those that change the direction of text as
// code points.
function visible(text) {
  const picture = (found) => String.fromCharCode(found === "\x7f" ? 0x2421 : 0x2400 + found.charCodeAt(0));
  const point = (found) => `[U+${found.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}]`;
  return text.replace(/[\0-\x1f\x7f]/g, picture).replace(/[\x80-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]|\p{Surrogate}/gu, point);
}

// Copy a text; returns whether the browser allowed it.
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without HTTPS, and in some frames, only the deprecated execCommand works.
    const area = el("textarea", { class: "cmemu-unseen", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}
