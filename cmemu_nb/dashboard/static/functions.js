// The Functions tab: a card for each function, with the history of its jobs. An open card has a form to try the function.

const FEW_FUNCTIONS = 8; // without a field to filter them
const HISTORY_BARS = 50;
const BAR_HEIGHT = 24;
const LEAST_MARK = 8; // an error that took no time must be seen, too
const OUTCOMES = { o: ["ok", "returned a value"], e: ["function errors", "raised an exception"], f: ["failed", "failed, or were cancelled"] };

function functionsPart(dashboard) {
  const cards = new Map();
  const filter = el("input", { type: "search", class: "cmemu-input cmemu-function-filter", placeholder: "Filter functions", "aria-label": "Filter functions", title: "Only functions with this text in their name, runtime, signature or description", oninput: () => narrow() });
  const counted = el("span", { class: "cmemu-muted", role: "status" });
  const filters = filterRow("Filter the functions", filter, counted);
  const list = el("ul", { class: "cmemu-functions", "aria-label": "Functions" });
  const nothing = el("p", { class: "cmemu-empty" });
  const more = el("p", { class: "cmemu-note" });
  const attempt = attemptPart(dashboard);
  const reached = roving(list, ".cmemu-function-name");
  let shown = [];
  let narrowed = null;

  function open(key) {
    dashboard.look({ function: dashboard.options.function === key ? "" : key, tried: "" });
  }

  // Show the cards that match the filter. Only those that changed are filled again.
  function narrow() {
    const text = filters.hidden ? "" : filter.value.trim().toLowerCase();
    let found = 0;
    for (const { key } of shown) {
      const card = cards.get(key);
      const fits = card.text.includes(text) || key === dashboard.options.function;
      if (card.element.hidden === fits) card.element.hidden = !fits;
      found += fits;
    }
    reached();
    setText(counted, text ? `${found.toLocaleString("en")} of ${shown.length.toLocaleString("en")}` : `${shown.length.toLocaleString("en")} in all`);
  }

  function update(rows) {
    if (rows === shown) return false;
    shown = rows;
    const keys = new Set(rows.map(({ key }) => key));
    for (const [key, card] of cards) {
      if (keys.has(key)) continue;
      card.element.remove();
      cards.delete(key);
    }
    const several = new Set(rows.map(({ runtime }) => runtime)).size > 1;
    let before = null;
    for (const row of rows) {
      if (!cards.has(row.key)) cards.set(row.key, functionCard(dashboard, row.key, open));
      const card = cards.get(row.key);
      card.fill(row, several);
      const place = before ? before.nextSibling : list.firstChild;
      if (place !== card.element) list.insertBefore(card.element, place);
      before = card.element;
    }
    return true;
  }

  function show() {
    const { rows = [], every = 0 } = dashboard.model.get("functions");
    const changed = update(rows);
    const histories = dashboard.model.get("histories");
    const key = dashboard.options.function;
    for (const card of cards.values()) card.show(histories[card.key], card.key === key, attempt.element);
    filters.hidden = rows.length <= FEW_FUNCTIONS;
    list.classList.toggle("cmemu-many", !filters.hidden);
    if (changed || narrowed !== key) narrow();
    narrowed = key;
    nothing.hidden = Boolean(rows.length);
    setText(nothing, `No schemas were posted yet. In a cell: @${dashboard.emu()}.function above a function, or ${dashboard.emu()}.launch("python app.py").`);
    setText(more, every > rows.length ? `The first ${rows.length} of ${every.toLocaleString("en")}: ${dashboard.emu()}.schemas has all.` : "");
    attempt.show();
  }

  return { element: el("div", {}, filters, list, nothing, more), show, parts: ["functions", "histories", "form", "tried"] };
}

// Make the card of a function. `fill(row, several)` shows what it takes and gives, and its runtime if there are several;
// `show(history, open, attempt)` the history of its jobs, and in an open card the form.
function functionCard(dashboard, key, onopen) {
  const name = el("bdi");
  const opener = button("", "Open the form of this function", () => onopen(key), { class: "cmemu-link cmemu-function-name", "aria-expanded": "false" });
  opener.append(name);
  const [version, runtime] = [el("span", { class: "cmemu-muted" }), el("bdi", { class: "cmemu-muted" })];
  const words = el("code", { class: "cmemu-function-words" });
  const summary = el("bdi", { class: "cmemu-function-summary" });
  const history = historyPart(dashboard);
  const head = el("div", { class: "cmemu-function-head" }, opener, version, runtime, history.chart);
  const face = el("div", { class: "cmemu-function-face" }, head, words, summary, history.figures, history.error);
  const element = el("li", { class: "cmemu-function" }, face);
  face.addEventListener("click", (event) => {
    if (!event.target.closest("button") && getSelection().isCollapsed) onopen(key);
  });
  const card = {
    key,
    element,
    text: "",
    fill(row, several) {
      card.text = [row.name, row.runtime, row.words, row.summary].join("\n").toLowerCase();
      setText(name, row.name);
      setText(version, row.version);
      setText(runtime, several ? `on ${row.runtime}` : "");
      setText(words, (row.words || "anything -> anything").replace(" -> ", " → "));
      words.title = words.textContent;
      setText(summary, row.summary);
      summary.title = row.summary;
    },
    show(jobs, open, attempt) {
      history.show(jobs);
      if (element.hasAttribute("data-open") !== open) {
        element.toggleAttribute("data-open", open);
        opener.setAttribute("aria-expanded", String(open));
      }
      if (open && attempt.parentElement !== element) element.append(attempt);
      if (!open && attempt.parentElement === element) attempt.remove();
    },
  };
  return card;
}

// Make the history of a function's jobs: a chart of the last ones, counts, percentiles and the last error.
function historyPart(dashboard) {
  const chart = svg("svg", { class: "cmemu-history", role: "img", viewBox: `0 0 ${2 * HISTORY_BARS} ${BAR_HEIGHT}` });
  const title = svg("title");
  const bars = Object.fromEntries(Object.keys(OUTCOMES).map((letter) => [letter, svg("path", { class: `cmemu-bar-${letter}` })]));
  chart.append(title, ...Object.values(bars));
  const counts = Object.fromEntries(Object.entries(OUTCOMES).map(([letter, [, tip]]) => [letter, el("span", { class: `cmemu-count-${letter}`, title: `Jobs that ${tip}` })]));
  const times = el("span", { class: "cmemu-muted cmemu-function-times", title: "Run times of the last 1,000 jobs: half of them ran no longer than p50, 95 % no longer than p95" });
  const figures = el("div", { class: "cmemu-function-figures" }, Object.values(counts), times);
  const error = button("", "Open the job with the last error", () => dashboard.look({ tab: "jobs", job: error.dataset.job }), { class: "cmemu-link cmemu-function-error" });
  const words = el("bdi");
  error.append(words);
  let latest;

  function show(jobs) {
    if (jobs === latest && latest !== undefined) return;
    latest = jobs ?? null;
    chart.classList.toggle("cmemu-blank", !jobs);
    for (const [letter, count] of Object.entries(counts)) {
      const number = jobs?.[letter] ?? 0;
      setText(count, number ? `${number.toLocaleString("en")} ${letter === "e" ? (number === 1 ? "error" : "errors") : OUTCOMES[letter][0]}` : "");
    }
    counts.o.classList.toggle("cmemu-muted", !jobs);
    if (!jobs) setText(counts.o, "no finished jobs yet");
    setText(times, jobs ? `p50 ${jobs.p50} · p95 ${jobs.p95}` : "");
    error.hidden = !jobs?.error.length;
    if (!error.hidden) [error.dataset.job, words.textContent] = jobs.error;
    if (jobs) draw(jobs);
  }

  function draw({ heights, letters, longest }) {
    const lines = { o: "", e: "", f: "" };
    [...letters].forEach((letter, position) => {
      const height = Math.max((parseInt(heights[position], 36) / 35) * BAR_HEIGHT, letter === "o" ? 1 : LEAST_MARK);
      lines[letter] += `M${2 * (HISTORY_BARS - letters.length + position) + 1} ${BAR_HEIGHT}v${-height.toFixed(1)}`;
    });
    for (const [letter, bar] of Object.entries(bars)) bar.setAttribute("d", lines[letter]);
    setText(title, `Run times of the last ${letters.length} jobs, the newest on the right, the longest ${longest}. Errors are coloured.`);
  }

  return { chart, figures, error, show };
}

function svg(tag, attributes = {}) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// Make the form of the open function, and beside it the job that it submitted last.
function attemptPart(dashboard) {
  const words = el("p", { class: "cmemu-note" });
  const place = el("div");
  const check = el("input", { type: "checkbox", checked: true, title: "Compare the query with the schema before it is sent" });
  const wrong = el("p", { class: "cmemu-wrong", role: "alert" });
  const run = el("button", { type: "submit", class: "cmemu-button cmemu-main", title: "Submit the query as a job and show the job here (Ctrl+Enter)" }, "Run");
  const newForm = button("New form", "Discard what is filled in", () => {
    made.touched = false;
    show();
  });
  const changed = el("p", { class: "cmemu-said", role: "status", hidden: true }, "The schema has changed since this form was made. ", newForm);
  const form = el(
    "form",
    { onsubmit: submit, novalidate: true, oninput: () => (made.touched = true) },
    changed,
    words,
    place,
    el("div", { class: "cmemu-row" }, run, el("label", { class: "cmemu-label" }, check, " check against the schema")),
    wrong,
  );
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    event.stopPropagation();
    form.requestSubmit();
  });
  const tried = jobCard(dashboard, { part: "tried", title: "The result", onclose: () => dashboard.look({ tried: "" }) });
  const section = el("section", { class: "cmemu-attempt-form", "aria-label": "Try it" }, form);
  const element = el("div", { class: "cmemu-attempt" }, section, tried.element);
  let made = { key: null };

  async function submit(event) {
    event.preventDefault();
    setText(wrong, "");
    const query = made.form.read();
    if (query === null) return;
    const fields = { runtime: made.runtime, function: made.name, query, validate: check.checked };
    const id = await dashboard.ask("submit", fields, (words) => setText(wrong, words));
    if (id) dashboard.look({ tried: id });
  }

  function show() {
    const part = dashboard.model.get("form");
    section.hidden = !part.key || part.key !== dashboard.options.function;
    const schema = JSON.stringify([part.schema, part.defaults]);
    changed.hidden = !(part.key === made.key && schema !== made.schema && made.touched);
    if (part.key && (part.key !== made.key || schema !== made.schema) && changed.hidden) {
      made = { key: part.key, runtime: part.runtime_id, name: part.function_name, schema, form: queryForm(part.schema, part.defaults), touched: false };
      place.replaceChildren(made.form.element);
      setText(words, schemaIn(part.schema, "inputs") ? "" : "The dialect of this schema is unknown: write the query as JSON.");
      setText(wrong, "");
    }
    tried.show();
  }

  return { element, show };
}
