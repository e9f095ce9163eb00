// The comparison of the open job with another job of its function.

const TIMES = new Set(["queued at", "queue time", "run time"]); // they differ always

function comparePart(dashboard) {
  const others = el("select", { class: "cmemu-input", title: "Compare with this job", onchange: () => choose(others.value) });
  const nothing = el("p", { class: "cmemu-empty" });
  const heads = [el("th", { scope: "col" }), el("th", { scope: "col" })];
  const facts = el("tbody");
  const bodies = { query: differences("Query"), result: differences("Result or error") };
  const table = el("table", { class: "cmemu-compared" }, el("caption", { class: "cmemu-unseen" }, "The other job and this one"), el("thead", {}, el("tr", {}, el("td"), heads)), facts);
  const both = el("div", {}, table, Object.values(bodies).map(({ element }) => element));
  const close = button("Done", "Show the job alone again", () => dashboard.look({ compare: [] }));
  const element = el("section", { "aria-label": "Compare", hidden: true }, el("div", { class: "cmemu-row" }, el("label", { class: "cmemu-label" }, "Compare with ", others), close), nothing, both);
  const opener = button("Compare", "Compare this job with the one before it of the same function, or with another", () => (isOpen() ? dashboard.look({ compare: [] }) : choose("")));
  let shown = "";

  const isOpen = () => dashboard.options.compare?.[0] === dashboard.options.job;
  const choose = (other) => dashboard.look({ compare: [dashboard.options.job, other] });

  function offer({ choices, other }) {
    const wanted = JSON.stringify(choices);
    if (others.dataset.words !== wanted) {
      others.dataset.words = wanted;
      others.replaceChildren(...choices.map(({ value, words }) => el("option", { value }, words)));
    }
    if (other && ![...others.options].some(({ value }) => value === other)) others.append(el("option", { value: other }, `…${other.slice(-6)}`));
    others.value = other;
  }

  // Show the part; returns whether it is open, instead of the details of the job.
  function show() {
    const part = dashboard.model.get("compared");
    const open = isOpen() && part.key === dashboard.options.job;
    if (!open && element.contains(document.activeElement)) opener.focus();
    element.hidden = !open;
    opener.setAttribute("aria-pressed", String(isOpen()));
    if (!open) return isOpen();
    offer(part);
    setText(nothing, part.nothing || "");
    nothing.hidden = !part.nothing;
    both.hidden = Boolean(part.nothing);
    const words = JSON.stringify(part);
    if (part.nothing || shown === words) return true;
    shown = words;
    heads.forEach((head, position) => setText(head, `${part.names[position]}${position ? " (this job)" : ""}`));
    facts.replaceChildren(...part.facts.map(([name, left, right]) => el("tr", { "data-differs": left !== right && !TIMES.has(name) }, el("th", { scope: "row" }, name), el("td", {}, left), el("td", {}, right))));
    for (const [name, body] of Object.entries(bodies)) body.show(part[name]);
    return true;
  }

  return { element, opener, show };
}

// Make the lines of two texts side by side, those that differ marked.
function differences(name) {
  const note = el("span", { class: "cmemu-muted" });
  const body = el("tbody");
  const table = el("table", { class: "cmemu-lines-compared" }, el("caption", {}, name, " ", note), body);
  const side = (mark, line, sign) => el("td", {}, mark === "~" && line ? el("span", { "aria-hidden": "true" }, sign) : "", el("bdi", {}, line));
  return {
    element: table,
    show(rows) {
      setText(note, rows.some(([mark]) => mark === "~") ? "" : "the same");
      body.replaceChildren(...rows.map(([mark, left, right]) => el("tr", { "data-differs": mark === "~" }, side(mark, left, "- "), side(mark, right, "+ "))));
    },
  };
}
