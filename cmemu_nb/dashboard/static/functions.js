// The Functions tab: the inputs and output of each function, and a form to try it.

function functionsPart(dashboard) {
  const table = dataTable({
    caption: "Functions (run times of the last 1,000 jobs of each)",
    columns: [
      { name: "Function" },
      { name: "Runtime" },
      { name: "Takes and gives" },
      { name: "ok", number: true, title: "How many of its jobs returned a value; only for functions in cells" },
      { name: "function error", number: true, title: "How many of its jobs raised" },
      { name: "failed", number: true, title: "How many of its jobs failed" },
      { name: "Run time p50", number: true, title: "Half of the last 1,000 jobs ran no longer" },
      { name: "p95", number: true, title: "95 % of the last 1,000 jobs ran no longer" },
    ],
    cellsOf: (row) => [row.name, row.runtime, row.words || "any JSON", ...row.jobs],
    onopen: (key) => dashboard.look({ function: dashboard.options.function === key ? "" : key, tried: "" }),
    empty: () => `No schemas were posted yet. In a cell: @${dashboard.emu()}.function above a function, or ${dashboard.emu()}.launch("python app.py").`,
  });
  const more = el("p", { class: "cmemu-note" });
  const heading = el("h4", { class: "cmemu-title" });
  const words = el("p", { class: "cmemu-muted" });
  const place = el("div");
  const check = el("input", { type: "checkbox", checked: true, title: "Compare the query with the schema before it is sent" });
  const wrong = el("p", { class: "cmemu-wrong", role: "alert" });
  const send = el("button", { type: "submit", class: "cmemu-button cmemu-main", title: "Submit the query as a job and show the result here" }, "Submit");
  const newForm = button("New form", "Discard what is filled in", () => {
    made.touched = false;
    show();
  });
  const changed = el("p", { class: "cmemu-said", role: "status", hidden: true }, "The schema has changed since this form was made. ", newForm);
  const form = el(
    "form",
    { onsubmit: submit, novalidate: true, oninput: () => (made.touched = true) },
    changed,
    place,
    el("div", { class: "cmemu-row" }, send, el("label", { class: "cmemu-label" }, check, " check against the schema")),
    wrong,
  );
  const tried = jobCard(dashboard, { part: "tried", title: "The result", onclose: () => dashboard.look({ tried: "" }) });
  const card = el("section", { class: "cmemu-card", "aria-label": "Try it", hidden: true }, heading, words, form);
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
    const { rows, every } = dashboard.model.get("functions");
    table.update(rows || [], dashboard.options.function);
    setText(more, rows && every > rows.length ? `The first ${rows.length} of ${every.toLocaleString("en")}: ${dashboard.emu()}.schemas has all.` : "");
    const part = dashboard.model.get("form");
    card.hidden = !part.key || part.key !== dashboard.options.function;
    const schema = JSON.stringify(part.schema);
    changed.hidden = !(part.key === made.key && schema !== made.schema && made.touched);
    if (part.key && (part.key !== made.key || schema !== made.schema) && changed.hidden) {
      made = { key: part.key, runtime: part.runtime_id, name: part.function_name, schema, form: queryForm(part.schema), touched: false };
      heading.replaceChildren("Try ", el("bdi", {}, part.name), " on ", el("bdi", {}, part.runtime));
      place.replaceChildren(made.form.element);
      setText(wrong, "");
    }
    setText(words, part.words || "The dialect of this schema is unknown: write the query as JSON.");
    tried.show();
  }

  return {
    element: el("div", {}, table.element, more, card, tried.element),
    show,
    parts: ["functions", "form", "tried"],
  };
}
