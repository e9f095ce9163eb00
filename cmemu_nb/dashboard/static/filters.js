// The filters of a table: choices, and a text to search for.

const SEARCH_MS = 150;

// Make a labelled choice with "any" first; `offer(choices)` replaces the others.
function choice(name, title, choices = []) {
  const select = el("select", { class: "cmemu-input", title }, el("option", { value: "" }, "any"));
  let offered = "";
  function offer(values) {
    const words = JSON.stringify(values);
    if (words === offered) return;
    offered = words;
    const before = select.value;
    select.replaceChildren(el("option", { value: "" }, "any"), ...values.map(({ value, words: shown }) => el("option", { value }, shown)));
    choose(before);
  }
  // A chosen value remains available even if it is not offered any more.
  function choose(value) {
    if (value && ![...select.options].some((option) => option.value === value)) select.append(el("option", { value }, visible(value)));
    if (select.value !== value) select.value = value;
  }
  offer(choices.map((value) => ({ value, words: value })));
  return { element: labelled(name, select), select, offer, choose };
}

function labelled(name, input) {
  return el("label", { class: "cmemu-label" }, name, " ", input);
}

// Make a search field: `onsearch(text)` is called when the typing pauses or ends; `show(text)` shows another text, but never
// replaces a text while it is typed.
function searchField(title, onsearch) {
  const input = el("input", { type: "search", class: "cmemu-input", title });
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
  });
  input.addEventListener("change", search);
  function show(text) {
    if (timer === null && input.value !== text) input.value = text;
  }
  return { element: labelled("Text", input), show };
}

// Make the row of a table's filters.
function filterRow(name, ...elements) {
  return el("form", { class: "cmemu-filters", role: "search", "aria-label": name, onsubmit: (event) => event.preventDefault() }, elements);
}
