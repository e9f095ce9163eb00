// One job: what went wrong, when it was queued and ran, its query, result and logs, and buttons to act on it.

// Make the card of the job that a part of the data describes. `list` has the rows of a list around it, if there is one:
// `list.row(id)` and `list.step(by)`, the id of the job before or after the open one.
function jobCard(dashboard, { part, title, onclose, list = null }) {
  const job = () => dashboard.model.get(part);
  const wanted = () => dashboard.options[part];
  const open = (id) => id && dashboard.look({ [part]: id });

  const heading = el("h4", { class: "cmemu-title", tabindex: "-1" });
  const back = button("← Back", "Back to the list", onclose, { class: "cmemu-button cmemu-back" });
  const previous = button("↑", "The job above in the list (k, or Alt and arrow up)", () => open(list.step(-1)), { "aria-label": "Previous job" });
  const next = button("↓", "The job below in the list (j, or Alt and arrow down)", () => open(list.step(1)), { "aria-label": "Next job" });
  const close = button("✕", "Close this job (Escape)", onclose, { "aria-label": "Close", class: "cmemu-button cmemu-close" });
  const head = el("div", { class: "cmemu-job-head" }, list && back, heading, list && [previous, next], close);

  const again = button("Run again", "Submit the same query again, and open the new job", async () => open(await dashboard.ask("run_again", { job: job().key })));
  const cancel = button("Cancel", "Cancel this job: its callers get an error, and a function in a cell is interrupted", async () => {
    const message = await dashboard.ask("cancel", { job: job().key });
    if (message) dashboard.say(message);
  });
  const failing = failForm(dashboard, job);
  const edit = list && editPart(dashboard);
  const compare = list && comparePart(dashboard);
  const copyCurl = button("Copy curl", "Copy a command that submits the same query, with the token in it, for a terminal", async () => {
    const command = await dashboard.ask("curl", { job: job().key });
    if (command) dashboard.say((await copyText(command)) ? "The command was copied, with the token in it: paste it in a terminal." : "The browser does not let pages copy. The lines of curl below do the same.");
  });
  const actions = el("div", { class: "cmemu-row cmemu-actions" }, again, edit?.opener, compare?.opener, copyCurl, cancel, failing.opener);

  const removed = el("p", { class: "cmemu-empty" });
  const glimpse = el("dl", { class: "cmemu-job-facts" });
  const diagnosis = el("p", { class: "cmemu-waits" });
  const error = errorBox();
  const moments = momentsPart();
  const bodies = { query: bodyPart("Query"), result: bodyPart("Result"), arrived: bodyPart("Result, as far as it has arrived") };
  const logs = logsPart();
  const facts = factsPart(dashboard);
  const curl = curlPart(dashboard);
  const parts = [error.element, diagnosis, moments.element, Object.values(bodies).map(({ element }) => element), logs.element, facts.element, curl.element];
  const all = el("div", {}, parts);
  const top = el("div", { class: "cmemu-job-top" }, head, actions, failing.element);
  const element = el("section", { class: "cmemu-card cmemu-job", "aria-label": title, hidden: true }, top, edit?.element, glimpse, removed, compare?.element, all);
  let shown = "";

  function name(words, state) {
    const described = JSON.stringify([words, state]);
    if (heading.dataset.words === described) return;
    heading.dataset.words = described;
    heading.title = words;
    heading.replaceChildren(el("bdi", {}, words), state ? " " : "", state ? badge(state) : "");
  }

  // Until the data of a job has arrived, what its row in the list says is shown.
  function showRow(row) {
    actions.hidden = all.hidden = true;
    removed.hidden = false;
    setText(removed, dashboard.model.get("newest")?.rows ? "The rest is shown when the cell that runs now has ended." : "Its details are on the way.");
    glimpse.replaceChildren(...(row ? glimpseOf(row) : []));
    name(row ? row.function : wanted(), row && { badge: row.outcome, tone: JOB_TONES[row.outcome] || "grey" });
  }

  function show() {
    const now = job();
    element.hidden = !wanted();
    if (!wanted()) return;
    if (wanted() !== shown) {
      shown = wanted();
      element.scrollTop = 0;
      failing.close();
    }
    for (const [way, by] of list ? [[previous, -1], [next, 1]] : []) way.setAttribute("aria-disabled", String(!list.step(by)));
    edit?.show();
    if (now.key !== wanted()) return showRow(list?.row(wanted()));
    glimpse.replaceChildren();
    setText(removed, now.removed || "");
    removed.hidden = !now.removed;
    actions.hidden = Boolean(now.removed);
    const comparing = compare?.show();
    all.hidden = Boolean(now.removed || comparing);
    if (now.removed) return name(now.key);
    cancel.hidden = failing.opener.hidden = Boolean(now.finished);
    if (now.finished) failing.close();
    name(now.function, now.state);
    setText(diagnosis, now.diagnosis);
    diagnosis.hidden = !now.diagnosis;
    error.show(now.error, now.state.tone);
    moments.show(now);
    for (const [each, body] of Object.entries(bodies)) body.show(now[each]);
    logs.show(now);
    facts.show(now.facts);
    curl.show(now.curl);
  }

  return { element, heading, show };
}

// Return what a row of the list says of its job, as the terms and descriptions of a list.
function glimpseOf(row) {
  const facts = [["query", row.query], [["error", "failed"].includes(row.outcome) ? "error" : "result", row.result], ["id", row.key], ["runtime", row.runtime]];
  if (row.wait !== null) facts.push(["queued for", durationText(row.wait)]);
  if (row.run !== null) facts.push(["ran for", durationText(row.run)]);
  return facts.filter(([, text]) => text).map(([name, text]) => [el("dt", {}, name), el("dd", {}, el("bdi", {}, text))]).flat();
}

// Make the button that opens a line in which a reason is typed, and this line, which fails the job.
function failForm(dashboard, job) {
  const reason = el("input", { type: "text", class: "cmemu-input", placeholder: "failed in the dashboard", "aria-label": "Reason", title: "Why the job fails: its callers get this message" });
  const send = el("button", { type: "submit", class: "cmemu-button", title: "End this job as failed, with the reason" }, "Fail");
  const element = el("form", { class: "cmemu-row cmemu-failing", hidden: true, onsubmit: fail, onkeydown: press }, reason, send, button("Keep", "Do not fail this job", close));
  const opener = button("Fail…", "End this job as failed, with a reason", () => (element.hidden ? ask() : close()), { "aria-expanded": "false" });

  function ask() {
    element.hidden = false;
    opener.setAttribute("aria-expanded", "true");
    reason.focus();
  }

  function close() {
    if (element.hidden) return;
    const focused = element.contains(document.activeElement);
    element.hidden = true;
    opener.setAttribute("aria-expanded", "false");
    if (focused) opener.focus();
  }

  // In JupyterLab the browser does not submit a form when Enter is pressed in an input.
  function press(event) {
    if (event.key === "Enter" && event.target === reason) fail(event);
    if (event.key !== "Escape") return;
    event.stopPropagation();
    close();
  }

  async function fail(event) {
    event.preventDefault();
    const message = await dashboard.ask("fail", { job: job().key, reason: reason.value });
    if (!message) return;
    reason.value = "";
    close();
    dashboard.say(message);
  }

  return { element, opener, close };
}

// Make the box of an error: its type and message, the frame of the user's own code, and the whole traceback to open.
function errorBox() {
  const type = el("strong", {});
  const message = el("span", { class: "cmemu-error-message" });
  const frame = el("pre", { class: "cmemu-body cmemu-frame", "aria-label": "Where it was raised", tabindex: "0" });
  const trace = el("pre", { class: "cmemu-body", "aria-label": "Traceback", tabindex: "0" });
  const whole = el("details", {}, el("summary", { title: "Show or hide the whole traceback" }, "Traceback"), trace);
  const element = el("section", { class: "cmemu-error", "aria-label": "Error", hidden: true }, el("p", {}, type, " ", message), frame, whole);
  return {
    element,
    show(error, tone) {
      element.hidden = !error;
      if (!error) return;
      element.dataset.tone = tone;
      setText(type, error.type);
      setText(message, error.message);
      setText(frame, error.frame);
      frame.hidden = !error.frame;
      setText(trace, error.trace);
      whole.hidden = !error.trace;
    },
  };
}

// Make the line of a job's moments, with a bar between them for each span of time; tooltips have the absolute times.
function momentsPart() {
  const element = el("ol", { class: "cmemu-moments", "aria-label": "Timeline" });
  let shape = "";

  // Elements stay while only times change, so that a tooltip stays open.
  function make({ moments, spans }) {
    const pieces = moments.flatMap((_, position) => [
      el("li", { class: "cmemu-moment" }),
      position < spans.length && el("li", { class: "cmemu-span" }, el("span"), el("span", { class: `cmemu-bar cmemu-${spans[position].tone}`, "aria-hidden": "true" })),
    ]);
    element.replaceChildren(...pieces.filter(Boolean));
  }

  return {
    element,
    show(now) {
      const described = JSON.stringify([now.moments.map(([words]) => words), now.spans.map(({ tone }) => tone)]);
      if (shape !== described) make(now);
      shape = described;
      const all = now.spans.reduce((sum, { length }) => sum + length, 0) || 1;
      now.moments.forEach(([words, at], position) => {
        const item = element.children[2 * position];
        setText(item, words);
        item.title = at;
      });
      now.spans.forEach(({ time, length }, position) => {
        const item = element.children[2 * position + 1];
        setText(item.firstChild, time);
        item.title = `${now.moments[position][0]} for ${time}`;
        item.style.flexGrow = length / all;
      });
    },
  };
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

// Make the part of what the job's function printed. It follows the end while it grows, unless someone has scrolled up.
function logsPart() {
  const text = el("pre", { class: "cmemu-body", tabindex: "0", "aria-label": "Logs" });
  const note = el("span", { class: "cmemu-muted" });
  const element = el("details", { open: true }, el("summary", { title: "Show or hide what the job's function printed" }, "Logs ", note), text);
  return {
    element,
    show({ logs, logs_note }) {
      element.hidden = !logs;
      const atEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 4;
      setText(text, logs);
      setText(note, logs_note);
      if (atEnd) text.scrollTop = text.scrollHeight;
    },
  };
}

// Make the list of a job's facts, with a button that copies the first, which is its id.
function factsPart(dashboard) {
  const element = el("dl", { class: "cmemu-job-facts" });
  let shown = "";
  const copy = (id) => button("Copy", "Copy the job's id", async () => dashboard.say((await copyText(id)) ? "The id was copied." : `The browser does not let pages copy. The id is ${id}`), { "aria-label": "Copy id" });
  return {
    element,
    show(facts) {
      const described = JSON.stringify(facts);
      if (described === shown) return;
      shown = described;
      element.replaceChildren(...facts.flatMap(([name, value], position) => [el("dt", {}, name), el("dd", {}, el("bdi", {}, value), position ? null : [" ", copy(value)])]));
    },
  };
}

// Make the part of the curl commands of a job.
function curlPart(dashboard) {
  const text = el("pre", { class: "cmemu-body", tabindex: "0", "aria-label": "curl commands" });
  const element = el(
    "details",
    {},
    el("summary", { title: "Show or hide the commands that submit and inspect it" }, "curl"),
    el("p", { class: "cmemu-note" }, "TOKEN is the emulator's bearer token. Copy curl copies one command with the token in it."),
    text,
  );
  return { element, show: (commands) => setText(text, commands.join("\n")) };
}
