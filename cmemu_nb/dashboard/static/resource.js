// One dataset or stream: what is known of it, its newest rows or records, its schema, and the transactions of a dataset.

function resourceCard(dashboard, onclose) {
  const heading = el("h4", { class: "cmemu-title", tabindex: "-1" });
  const back = button("← Back", "Back to the lists", onclose, { class: "cmemu-button cmemu-back" });
  const close = button("✕", "Close this (Escape)", onclose, { "aria-label": "Close", class: "cmemu-button cmemu-close" });
  const branch = el("select", { class: "cmemu-input", "aria-label": "Branch", title: "The branch that is shown", onchange: () => dashboard.look({ resource: [dashboard.options.resource[0], branch.value] }) });
  const top = el("div", { class: "cmemu-job-top" }, el("div", { class: "cmemu-job-head" }, back, heading, branch, close));
  const removed = el("p", { class: "cmemu-empty" });
  const opened = el("p", { class: "cmemu-waits" });
  const abort = button("Abort…", "Discard the files of the open transaction", () => {
    const { rid, open_rid } = dashboard.model.get("resource");
    confirming.ask("Abort", "Abort the transaction: its files are discarded, and its program gets an error if it still runs.", () => runAbort(rid, open_rid));
  });
  const actions = el("div", { class: "cmemu-row" }, abort);
  const confirming = confirmPart(actions);
  const inDanger = el("div", {}, opened, actions, confirming.element);
  const facts = el("dl", { class: "cmemu-job-facts" });
  const preview = previewPart();
  const fields = fieldsPart();
  const transactions = transactionsPart(dashboard);
  const all = el("div", {}, inDanger, facts, preview.element, fields.element, transactions.element);
  const element = el("section", { class: "cmemu-card cmemu-job cmemu-resource", "aria-label": "The open dataset or stream", hidden: true }, top, removed, all);
  let shown = "";

  function name(words, kind) {
    const described = JSON.stringify([words, kind]);
    if (heading.dataset.words === described) return;
    heading.dataset.words = described;
    heading.title = words;
    heading.replaceChildren(el("bdi", {}, words), " ", kind ? el("span", { class: "cmemu-muted cmemu-kind" }, kind) : "");
  }

  function offer(branches, chosen) {
    branch.hidden = branches.length < 2;
    const words = JSON.stringify(branches);
    if (branch.dataset.words !== words) {
      branch.dataset.words = words;
      branch.replaceChildren(...branches.map(({ value, words: shown }) => el("option", { value }, shown)));
    }
    if (branch.value !== chosen) branch.value = chosen;
  }

  async function runAbort(dataset, transaction) {
    const message = await dashboard.ask("abort", { dataset, transaction });
    if (message) dashboard.say(message);
  }

  function showFacts(now) {
    const copy = button("Copy", "Copy the RID", async () => dashboard.say((await copyText(now.rid)) ? "The RID was copied." : `The browser does not let pages copy. The RID is ${now.rid}`), { "aria-label": "Copy RID" });
    const words = JSON.stringify([now.rid, now.facts]);
    if (facts.dataset.words === words) return;
    facts.dataset.words = words;
    const focused = facts.contains(document.activeElement);
    const rows = [["RID", [el("bdi", {}, now.rid), " ", copy]], ...now.facts.map(([term, text]) => [term, el("bdi", { class: term === "in a cell" && "cmemu-code" }, text)])];
    facts.replaceChildren(...rows.map(([term, content]) => [el("dt", {}, term), el("dd", {}, content)]).flat());
    if (focused) copy.focus();
  }

  function show() {
    const wanted = dashboard.options.resource ?? [];
    element.hidden = !wanted[0];
    if (!wanted[0]) return;
    const now = dashboard.model.get("resource");
    const here = now.key && now.key[0] === wanted[0] && now.key[1] === wanted[1];
    if (shown !== wanted.join("\n")) {
      shown = wanted.join("\n");
      element.scrollTop = 0;
      confirming.close();
    }
    all.hidden = !here || Boolean(now.removed);
    removed.hidden = !all.hidden;
    setText(removed, here ? now.removed || "" : "Its details are on the way.");
    if (!here) return name(wanted[0], "");
    if (now.removed) {
      branch.hidden = true;
      return name(wanted[0], "");
    }
    name(now.name, now.kind);
    offer(now.branches, wanted[1]);
    setText(opened, now.open || "");
    if (!now.open) confirming.close();
    inDanger.hidden = !now.open;
    showFacts(now);
    preview.show(now);
    fields.show(now);
    transactions.show(now);
  }

  return { element, heading, show, tick: transactions.tick };
}

// Make the table of the newest rows or records. Values are text; null is a muted word.
function previewPart() {
  const table = el("table", { class: "cmemu-preview" });
  const scroll = el("div", { class: "cmemu-preview-scroll", tabindex: "0", role: "region" }, table);
  const note = el("p", { class: "cmemu-note" });
  const title = el("h5", { class: "cmemu-part" });
  const element = el("div", {}, title, scroll, note);
  let words = "";

  function show({ kind, preview }) {
    const now = JSON.stringify([kind, preview]);
    if (now === words) return;
    words = now;
    setText(title, kind === "stream" ? "Newest records" : preview.newest === false ? "First rows" : "Newest rows");
    scroll.setAttribute("aria-label", title.textContent);
    const style = ({ number }) => number && "cmemu-number";
    const heads = preview.columns.map((column) => el("th", { scope: "col", title: `${column.name} ${column.type}`.trim(), class: style(column) }, el("bdi", {}, column.name), el("small", {}, column.type)));
    const cell = (value, position) => el("td", { class: style(preview.columns[position]), title: value }, value === null ? el("i", { class: "cmemu-muted" }, "null") : el("bdi", {}, value));
    table.replaceChildren(el("thead", {}, el("tr", {}, heads)), el("tbody", {}, preview.rows.map((row) => el("tr", {}, row.map(cell)))));
    scroll.hidden = !preview.columns.length;
    setText(note, preview.note || (preview.rows.length ? "" : "There are no records."));
  }

  return { element, show };
}

// Make the list of the fields with their types.
function fieldsPart() {
  const summary = el("summary", { title: "Show or hide the fields" });
  const list = el("dl", { class: "cmemu-job-facts" });
  const note = el("p", { class: "cmemu-note" });
  const element = el("details", {}, summary, list, note);
  let words = "";

  function show({ kind, fields, preview }) {
    const now = JSON.stringify(fields);
    element.hidden = !fields.shown.length;
    if (now === words) return;
    words = now;
    const every = fields.shown.length;
    setText(summary, `Schema: ${fields.more ? `more than ${every}` : every} ${kind === "stream" ? "field" : "column"}${every === 1 ? "" : "s"}`);
    list.replaceChildren(...fields.shown.map(([name, type]) => [el("dt", {}, el("bdi", {}, name)), el("dd", {}, el("bdi", {}, type))]).flat());
    setText(note, fields.more ? `${fields.more} more are not shown.` : "");
    element.open = !preview.columns.length;
  }

  return { element, show };
}

// Make the table of a dataset's newest transactions.
function transactionsPart(dashboard) {
  const table = lineTable({
    caption: "Transactions, newest first",
    columns: [
      { name: "State", width: 124, fill: (cell, row) => fillState(cell, row.state) },
      { name: "Type", width: 92 },
      { name: "Branch", share: 4, from: 360 },
      { name: "Files", width: 48, number: true, from: 420 },
      { name: "Opened", width: 84, number: true, title: "How long ago it was opened", fill: (cell, row) => fillSince(dashboard, cell, row.opened), live: true },
      { name: "Transaction", width: 96, from: 320, title: "The end of its RID", fill: (cell, row) => fillRid(cell, row.key) },
    ],
    cellsOf: (row) => [null, row.type, row.branch, row.files, null, null],
    empty: "There are no transactions yet.",
  });
  const note = el("p", { class: "cmemu-note" });
  const element = el("div", {}, el("h5", { class: "cmemu-part" }, "Transactions"), table.element, note);

  function show({ transactions, every_transaction: every }) {
    element.hidden = !transactions;
    if (!transactions) return;
    table.update(transactions.map((each) => ({ key: each.rid, ...each })));
    setText(note, every > transactions.length ? `The newest ${transactions.length} of ${every.toLocaleString("en")}.` : "");
  }

  return { element, show, tick: table.tick };
}

function fillState(cell, state) {
  if (cell.textContent.endsWith(state.badge) && cell.firstChild) return;
  cell.replaceChildren(badge(state));
}

function fillRid(cell, rid) {
  setText(cell, `…${rid.slice(-8)}`);
  cell.title = rid;
}
