// One job: its state, query and result, and buttons to act on it.

function jobCard(dashboard, { part, title, onclose }) {
  const heading = el("h4", { class: "cmemu-title" });
  const removed = el("p", { class: "cmemu-empty" });
  const facts = el("dl", { class: "cmemu-facts" });
  const steps = el("ol", { class: "cmemu-steps", "aria-label": "Timeline" });
  const diagnosis = el("p", { class: "cmemu-waits" });
  const error = el("pre", { class: "cmemu-body cmemu-error", "aria-label": "Error" });
  const bodies = { query: bodyPart("Query"), arrived: bodyPart("Result, as far as it has arrived"), result: bodyPart("Result") };
  const logs = el("pre", { class: "cmemu-body", tabindex: "0", "aria-label": "Logs" });
  const logNote = el("span", { class: "cmemu-muted" });
  const logPart = el("details", { open: true }, el("summary", { title: "Show or hide what the job's function printed" }, "Logs ", logNote), logs);
  const curl = el("pre", { class: "cmemu-body", tabindex: "0", "aria-label": "curl commands" });
  const curlPart = el(
    "details",
    {},
    el("summary", { title: "Show or hide the commands that submit and inspect it" }, "curl"),
    el("p", { class: "cmemu-note" }, "TOKEN is the emulator's bearer token: Copy behind the info button copies it."),
    curl,
    button("Copy", "Copy the curl commands", async () => dashboard.say((await copyText(curl.textContent)) ? "The commands were copied." : "The browser does not let pages copy. Select the text.")),
  );
  const cancel = button("Cancel", "Cancel this job: its callers get an error, and a function in a cell is interrupted", async () => {
    const message = await dashboard.ask("cancel", { job: job().key });
    if (message) dashboard.say(message);
  });
  const reason = el("input", { type: "text", class: "cmemu-input", placeholder: "failed in the dashboard", "aria-label": "Reason", title: "Why the job fails: its callers get this message" });
  const fail = button("Fail", "End this job as failed, with the reason", async () => {
    const message = await dashboard.ask("fail", { job: job().key, reason: reason.value });
    if (!message) return;
    reason.value = "";
    dashboard.say(message);
  });
  const failing = el("span", { class: "cmemu-row" }, cancel, reason, fail);
  const again = button("Run again", "Submit the same query again", async () => {
    const id = await dashboard.ask("run_again", { job: job().key });
    if (id) dashboard.look({ [part]: id });
  });
  const copy = button("Copy id", "Copy the job's id", async () => dashboard.say((await copyText(job().key)) ? "The id was copied." : `The browser does not let pages copy. The id is ${job().key}`));
  const close = button("Close", "Close this job", onclose);
  const actions = el("div", { class: "cmemu-row" }, again, copy, failing, close);
  const all = el("div", {}, diagnosis, facts, steps, error, bodies.result.element, bodies.arrived.element, bodies.query.element, logPart, curlPart);
  const element = el("section", { class: "cmemu-card", "aria-label": title, hidden: true }, heading, actions, removed, all);

  const job = () => dashboard.model.get(part);

  function show() {
    const now = job();
    element.hidden = !now.key;
    if (!now.key) return;
    setText(removed, now.removed || "");
    removed.hidden = !now.removed;
    all.hidden = Boolean(now.removed);
    again.hidden = Boolean(now.removed);
    failing.hidden = Boolean(now.removed || now.finished);
    if (now.removed) {
      heading.dataset.words = "";
      return heading.replaceChildren(el("bdi", {}, now.key));
    }
    const words = JSON.stringify([now.function, now.state]);
    if (heading.dataset.words !== words) {
      heading.dataset.words = words;
      heading.replaceChildren(el("bdi", {}, now.function), " ", badge(now.state));
    }
    const rows = JSON.stringify(now.facts);
    if (facts.dataset.words !== rows) {
      facts.dataset.words = rows;
      facts.replaceChildren(...now.facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, el("bdi", {}, value)))));
    }
    steps.replaceChildren(...now.timeline.map(([what, at, after]) => el("li", {}, el("strong", {}, what), ` ${at} `, el("span", { class: "cmemu-muted" }, after))));
    setText(diagnosis, now.diagnosis);
    diagnosis.hidden = !now.diagnosis;
    setText(error, now.error);
    error.hidden = !now.error;
    for (const [name, body] of Object.entries(bodies)) body.show(now[name]);
    setText(logs, now.logs);
    setText(logNote, now.logs_note);
    logPart.hidden = !now.logs;
    setText(curl, now.curl.join("\n"));
  }

  return { element, show };
}

// Make the part of a query or a result: its kind, its size and its text.
function bodyPart(name) {
  const kind = el("span", { class: "cmemu-muted" });
  const text = el("pre", { class: "cmemu-body", tabindex: "0", "aria-label": name });
  const element = el("details", { open: true }, el("summary", { title: `Show or hide the ${name.split(",")[0].toLowerCase()}` }, name, " ", kind), text);
  return {
    element,
    show(body) {
      element.hidden = !body;
      if (!body) return;
      setText(kind, `${body.kind}, ${body.note}`);
      setText(text, body.text);
      text.hidden = !body.text;
    },
  };
}
