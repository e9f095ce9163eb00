// The filters of a table: choices, and a text to search for.

const SEARCH_MS = 150;

// Make a choice; without one it shows its name. `offer(choices)` replaces the choices.
function choice(name, title, choices = []) {
  const select = el("select", { class: "cmemu-input", title, "aria-label": name }, el("option", { value: "" }, name));
  let offered = "";
  function offer(values) {
    const words = JSON.stringify(values);
    if (words === offered) return;
    offered = words;
    const before = select.value;
    select.replaceChildren(el("option", { value: "" }, name), ...values.map(({ value, words: shown }) => el("option", { value }, shown)));
    choose(before);
  }
  // A chosen value remains available even if it is not offered any more.
  function choose(value) {
    if (value && ![...select.options].some((option) => option.value === value)) select.append(el("option", { value }, visible(value)));
    if (select.value !== value) select.value = value;
  }
  offer(choices.map((each) => (typeof each === "string" ? { value: each, words: each } : each)));
  return { element: el("span", { class: "cmemu-choice" }, select), select, offer, choose };
}

// Make a search field: `onsearch(text)` is called when the typing pauses or ends, and `ontype()` at every letter; `show(text)`
// shows another text, but never replaces a text while it is typed.
function searchField(title, onsearch, { name = "Text", placeholder = null, ontype = null } = {}) {
  const input = el("input", { type: "search", class: "cmemu-input", title, placeholder: placeholder || title, "aria-label": name, spellcheck: "false", autocomplete: "off" });
  let timer = null;
  function search() {
    if (timer === null) return;
    clearTimeout(timer);
    timer = null;
    onsearch(input.value);
  }
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(search, SEARCH_MS);
    ontype?.();
  });
  input.addEventListener("change", search);
  function show(text) {
    if (timer === null && input.value !== text) input.value = text;
  }
  function clear() {
    clearTimeout(timer);
    timer = null;
    input.value = "";
  }
  return { element: el("span", { class: "cmemu-search" }, input), show, clear, text: () => input.value };
}

// Make the row of a table's filters.
function filterRow(name, ...elements) {
  return el("form", { class: "cmemu-filters", role: "search", "aria-label": name, onsubmit: (event) => event.preventDefault() }, elements);
}
