// Tables with one line for each row, of the same height everywhere: a narrow table has fewer columns, and no row wraps. Rows
// keep their elements while the data changes, so that a click never misses a row.

const HOLD_MS = 4000;

// Make a table. A column has a `width` in pixels, or a `share` of what is left. It is shown if the table is at least `from` pixels
// wide, and if `when()` says so. Its value is what `cellsOf(row)` gives at its place, or `fill(cell, row)` writes it, again in every
// `tick()` if it is `live`. The value of the column that `opens` is a button, and a click on its row calls `onopen(key)`; the arrow
// keys move from row to row. While the pointer moves over the table no row is added or moved, unless the filter (`asked`) has
// changed. `update(rows, openKey, asked)` shows rows, each with a unique `key`.
function lineTable({ caption, columns, cellsOf, onopen, empty }) {
  const widths = columns.map(() => el("col"));
  const heads = columns.map(({ name, title, number }) => el("th", { scope: "col", title: title || name, class: number && "cmemu-number" }, name));
  const body = el("tbody");
  const table = el("table", { class: "cmemu-lines" }, el("caption", {}, caption), el("colgroup", {}, widths), el("thead", {}, el("tr", {}, heads)), body);
  const nothing = el("p", { class: "cmemu-empty" });
  const note = el("p", { class: "cmemu-note", role: "status" });
  const element = el("div", {}, el("div", { class: "cmemu-scroll" }, table), nothing, note);
  const entries = new Map();
  const reachable = roving(body, ".cmemu-open");
  let latest = { rows: [], openKey: null, asked: "" };
  let columnsShown = "";
  let pointedAt = 0;
  let timer = null;

  function makeEntry(row) {
    const cells = columns.map(({ number }) => el("td", { class: number && "cmemu-number" }));
    const line = el("tr", onopen ? { class: "cmemu-clickable", onclick: () => onopen(row.key) } : {}, cells);
    columns.forEach(({ opens }, position) => opens && cells[position].append(el("button", { type: "button", class: "cmemu-link cmemu-open" }, el("bdi"))));
    const entry = { line, cells, row };
    showColumns(cells);
    return entry;
  }

  function fillEntry(entry, row) {
    entry.row = row;
    const values = cellsOf(row);
    columns.forEach(({ fill, opens }, position) => {
      const cell = entry.cells[position];
      if (fill) return fill(cell, row);
      if (cell.title === values[position] && cell.firstChild) return;
      cell.title = values[position];
      if (opens) cell.firstChild.title = values[position];
      const place = opens ? cell.firstChild.firstChild : cell.firstChild || cell.appendChild(el("bdi"));
      place.textContent = values[position];
    });
    const open = row.key === latest.openKey;
    entry.line.toggleAttribute("data-open", open);
    entry.line.querySelector(".cmemu-open")?.setAttribute("aria-pressed", String(open));
  }

  // Return the positions of the columns that are shown in a width.
  function fitting(width) {
    return columns.map((_, position) => position).filter((position) => (columns[position].from ?? 0) <= width && (columns[position].when?.() ?? true));
  }

  function showColumns(cells) {
    cells.forEach((cell, position) => (cell.hidden = !columnsShown.includes(`,${position},`)));
  }

  // Choose the columns that fit, and their widths.
  function fit() {
    const width = element.clientWidth;
    if (!width) return;
    const positions = fitting(width);
    const chosen = `,${positions.join(",")},`;
    if (chosen !== columnsShown) {
      columnsShown = chosen;
      for (const { cells } of [{ cells: heads }, { cells: widths }, ...entries.values()]) showColumns(cells);
    }
    const sum = (of) => positions.reduce((total, position) => total + (columns[position][of] ?? 0), 0);
    const [left, shares] = [Math.max(0, width - sum("width")), sum("share")];
    for (const position of positions) {
      const { width: fixed, share } = columns[position];
      widths[position].style.width = `${fixed ?? (left * share) / shares}px`;
    }
  }

  function show() {
    keepingFocus(table, arrange);
  }

  function arrange() {
    const { rows } = latest;
    // Without newer rows nothing would move, so removed rows may disappear.
    const held = Date.now() - pointedAt < HOLD_MS && entries.size > 0 && rows.some((row) => !entries.has(row.key));
    clearTimeout(timer);
    if (held) timer = setTimeout(show, HOLD_MS);
    const wanted = held ? rows.filter((row) => entries.has(row.key)) : rows;
    const waiting = rows.length - wanted.length;
    setText(note, waiting ? `${waiting} newer ${waiting === 1 ? "waits" : "wait"} while the pointer moves over the table.` : "");
    const keys = new Set(rows.map((row) => row.key));
    for (const [key, { line }] of held ? [] : entries) {
      if (keys.has(key)) continue;
      line.remove();
      entries.delete(key);
    }
    let before = null;
    for (const row of wanted) {
      if (!entries.has(row.key)) entries.set(row.key, makeEntry(row));
      const entry = entries.get(row.key);
      fillEntry(entry, row);
      const place = before ? before.nextSibling : body.firstChild;
      if (!held && place !== entry.line) body.insertBefore(entry.line, place);
      before = entry.line;
    }
    reachable();
    table.hidden = !entries.size;
    nothing.hidden = Boolean(entries.size);
    setText(nothing, typeof empty === "function" ? empty() : empty);
  }

  table.addEventListener("pointermove", () => (pointedAt = Date.now()));
  table.addEventListener("pointerleave", () => {
    pointedAt = 0;
    show();
  });
  new ResizeObserver(fit).observe(element);
  return {
    element,
    rows: () => latest.rows,
    update(rows, openKey = null, asked = "") {
      if (asked !== latest.asked) pointedAt = 0;
      latest = { rows, openKey, asked };
      fit();
      show();
    },
    tick() {
      for (const { cells, row } of entries.values()) columns.forEach(({ fill, live }, position) => live && fill(cells[position], row));
    },
  };
}
