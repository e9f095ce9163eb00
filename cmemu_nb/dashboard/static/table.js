// Tables whose rows keep their elements while the data changes, so that a click never misses a row.

const HOLD_MS = 4000;

// Make a badge: a word beside a dot of its colour.
function badge({ badge: text, tone }) {
  return el(
    "span",
    { class: `cmemu-badge cmemu-${tone}` },
    el("span", { class: "cmemu-dot", "aria-hidden": "true" }, "●"),
    el("bdi", {}, text),
  );
}

// Make a cell's content: text, a badge, a list of texts, or an element as it is.
function content(value) {
  if (value instanceof Node) return value;
  if (Array.isArray(value) && !value.length) return "—";
  if (Array.isArray(value)) return el("ul", { class: "cmemu-list" }, value.map((each) => el("li", {}, el("bdi", {}, each))));
  if (value !== null && typeof value === "object") return badge(value);
  return value === "" ? "" : el("bdi", {}, String(value));
}

// Make a table. A column is `number`, `short` (never broken into lines) or text. `cellsOf(row)` gives a row's values, one
// for each column; `actionsOf(row)` elements for a last column, made once; `onopen(key)` makes the first cell a button
// and the row clickable. With `hold`, no row is added or moved while the pointer moves over the table, unless the filter
// (`asked`) has changed.
// `update(rows, openKey, asked)` shows rows, each with a unique `key`.
// In a narrow dashboard, and for a `wide` table in a less narrow one, a row is a paragraph with the names of the columns.
// The roles are explicit, because CSS that lays out table elements as blocks removes their implicit roles.
function dataTable({ caption, columns, cellsOf, actionsOf, onopen, hold, wide, empty }) {
  const styles = columns.map(({ number, short }) => (number ? "cmemu-number" : short ? "cmemu-short" : null));
  const heads = columns.map(({ name, title }, position) => el("th", { scope: "col", role: "columnheader", title, class: styles[position] }, name));
  if (actionsOf) heads.push(el("th", { scope: "col", role: "columnheader" }, "Actions"));
  const body = el("tbody", { role: "rowgroup" });
  const nothing = el("p", { class: "cmemu-empty" });
  const note = el("p", { class: "cmemu-note", role: "status" });
  const head = el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads));
  const table = el("table", { class: "cmemu-table", role: "table" }, el("caption", {}, caption), head, body);
  const shown = new Map();
  let latest = { rows: [], openKey: null };
  let pointedAt = 0;
  let timer = null;

  function makeRow(row) {
    const cells = styles.map((style, position) => el("td", { class: style, role: "cell", "data-name": columns[position].name }));
    const actions = actionsOf && el("td", { role: "cell" }, el("div", { class: "cmemu-row" }, actionsOf(row)));
    const element = el("tr", { role: "row" }, cells, actions);
    if (onopen) {
      element.classList.add("cmemu-clickable");
      element.addEventListener("click", (event) => {
        const busy = event.target.closest("button, input, a");
        if (!busy || busy.classList.contains("cmemu-open")) onopen(row.key);
      });
    }
    return { element, cells, words: [] };
  }

  function fillRow(entry, row, openKey) {
    cellsOf(row).forEach((value, position) => {
      const words = value instanceof Node ? value.textContent : JSON.stringify(value);
      if (entry.words[position] === words) return;
      entry.words[position] = words;
      const inside = content(value);
      if (onopen && position === 0) {
        let opener = entry.cells[0].firstElementChild;
        if (!opener) entry.cells[0].append((opener = button("", "Open this one", null, { class: "cmemu-link cmemu-open" })));
        opener.replaceChildren(inside);
      } else entry.cells[position].replaceChildren(inside);
    });
    entry.element.toggleAttribute("data-open", row.key === openKey);
    if (onopen) entry.cells[0].firstElementChild.setAttribute("aria-pressed", String(row.key === openKey));
  }

  function show() {
    const { rows, openKey } = latest;
    // Without newer rows nothing would move, so removed rows may disappear.
    const held = Date.now() - pointedAt < HOLD_MS && rows.some((row) => !shown.has(row.key));
    clearTimeout(timer);
    if (held) timer = setTimeout(show, HOLD_MS);
    const wanted = held && shown.size ? rows.filter((row) => shown.has(row.key)) : rows;
    const waiting = rows.length - wanted.length;
    setText(note, waiting ? `${waiting} newer ${waiting === 1 ? "waits" : "wait"} while the pointer moves over the table.` : "");
    if (!held) {
      const keys = new Set(rows.map((row) => row.key));
      for (const [key, entry] of shown) {
        if (keys.has(key)) continue;
        entry.element.remove();
        shown.delete(key);
      }
    }
    let before = null;
    for (const row of wanted) {
      if (!shown.has(row.key)) shown.set(row.key, makeRow(row));
      const entry = shown.get(row.key);
      fillRow(entry, row, openKey);
      const place = before ? before.nextSibling : body.firstChild;
      if (!held && place !== entry.element) body.insertBefore(entry.element, place);
      before = entry.element;
    }
    table.hidden = !shown.size;
    nothing.hidden = Boolean(shown.size);
    setText(nothing, typeof empty === "function" ? empty() : empty);
  }

  if (hold) {
    table.addEventListener("pointermove", () => (pointedAt = Date.now()));
    table.addEventListener("pointerleave", () => {
      pointedAt = 0;
      show();
    });
  }
  const element = el("div", {}, el("div", { class: "cmemu-scroll" }, table), nothing, note);
  new ResizeObserver(() => element.classList.toggle("cmemu-stacked", element.clientWidth < (wide ? 1000 : 620))).observe(element);
  return {
    element,
    update(rows, openKey = null, asked = "") {
      if (asked !== latest.asked) pointedAt = 0;
      latest = { rows, openKey, asked };
      show();
    },
  };
}
