// The Runtimes tab: one line for each runtime and for each of its replicas, and buttons to act on them.

const RUNTIME_COLUMNS = [
  { name: "Runtime", kind: "name", title: "A runtime, and below it the replicas of its module" },
  { name: "State", kind: "state", title: "connected: a module polls. stale: no poll for longer than a poll may wait. never polled: no module has connected yet. pipeline: its module takes no jobs" },
  { name: "Replicas", kind: "replicas", number: true, title: "Replicas that are responsive: copies of a module, each with its own token; 2 of 0..4 for a module that is scaled from 0 to 4 of them" },
  { name: "Slots", kind: "slots", number: true, title: "Slots that running jobs have taken, of all that the executors have" },
  { name: "Last poll", kind: "poll", number: true, title: "How long ago an executor asked for a job" },
  { name: "Queued", kind: "queued", number: true, title: "Jobs that wait" },
  { name: "Running", kind: "running", number: true, title: "Jobs that run" },
  { name: "Exit", kind: "exit", number: true, title: "The exit code of a program that has ended" },
  { name: "PID", kind: "pid", number: true, title: "The process id of a launched program" },
];
const RUNTIME_TICK_MS = 1000;

function runtimesPart(dashboard) {
  const heads = RUNTIME_COLUMNS.map(({ name, kind, number, title }) => el("th", { scope: "col", title, class: runtimeCell(kind, number) }, name));
  const table = el("table", { class: "cmemu-runtimes", "aria-label": "Runtimes" }, el("thead", {}, el("tr", {}, heads)));
  const nothing = el("p", { class: "cmemu-empty" });
  const more = el("p", { class: "cmemu-note" });
  const groups = new Map();
  const update = roving(table, ".cmemu-runtime-open");
  const element = el("div", {}, table, nothing, more);
  // The details take the whole width: as many columns as are shown.
  new ResizeObserver(spread).observe(element);

  function spread() {
    const shown = heads.filter((head) => head.checkVisibility()).length || heads.length;
    for (const group of groups.values()) group.spread(shown);
  }

  let timer = null;

  function tick() {
    if (table.isConnected) return table.checkVisibility() && groups.forEach((group) => group.tick());
    clearInterval(timer);
    timer = null;
  }

  function show() {
    timer ??= setInterval(tick, RUNTIME_TICK_MS);
    const { rows = [], every = 0 } = dashboard.model.get("runtimes");
    const keys = new Set(rows.map(({ key }) => key));
    for (const [key, group] of groups) {
      if (keys.has(key)) continue;
      group.element.remove();
      groups.delete(key);
    }
    rows.forEach((row, position) => {
      if (!groups.has(row.key)) groups.set(row.key, runtimeGroup(dashboard));
      const group = groups.get(row.key);
      group.show(row);
      const place = table.children[position + 1]; // after the head
      if (place !== group.element) table.insertBefore(group.element, place ?? null);
    });
    // Columns that would be empty leave their place to the names.
    table.classList.toggle("cmemu-no-replicas", rows.every(({ lines, replicas }) => !lines.length && !replicas));
    table.classList.toggle("cmemu-no-programs", rows.every(({ lines }) => lines.every((line) => line.pid === null && line.exit_code === null)));
    update();
    table.hidden = !rows.length;
    spread();
    nothing.hidden = Boolean(rows.length);
    setText(nothing, `There are no runtimes. @${dashboard.emu()}.function above a function opens one, ${dashboard.emu()}.open_runtime("my-runtime", deployed_app_rid="ri...") another, ${dashboard.emu()}.launch("python app.py") a third.`);
    setText(more, every > rows.length ? `The newest ${rows.length} of ${every.toLocaleString("en")}: ${dashboard.emu()}.runtimes has all.` : "");
  }

  return { element, show, parts: ["runtimes"] };
}

function runtimeCell(kind, number) {
  return `cmemu-of-${kind}${number ? " cmemu-number" : ""}`;
}

// Make the lines of one runtime: its own, those of its replicas, and its details, which a click opens.
function runtimeGroup(dashboard) {
  const id = uniqueId("runtime");
  const opener = button("", "Show or hide the apps, functions, configuration and actions of this runtime", null, { class: "cmemu-link cmemu-runtime-open", "aria-expanded": "false", "aria-controls": id });
  opener.append(el("span", { class: "cmemu-chevron", "aria-hidden": "true" }), el("bdi"));
  const own = runtimeLine("cmemu-runtime", opener);
  const details = runtimeDetails(dashboard);
  const wide = el("td", {}, details.element);
  const below = el("tr", { class: "cmemu-runtime-details", id, hidden: true }, wide);
  const element = el("tbody", {}, own.element, below);
  const lines = [];
  let latest = null;

  own.element.addEventListener("click", () => {
    below.hidden = !below.hidden;
    opener.setAttribute("aria-expanded", String(!below.hidden));
    if (!below.hidden) details.show(latest);
  });

  function tick() {
    own.cells.poll.fill(latest.polled_at === null ? "never" : sinceText(dashboard, latest.polled_at));
  }

  return {
    element,
    tick,
    spread(columns) {
      if (wide.colSpan !== columns) wide.colSpan = columns;
    },
    show(row) {
      if (latest === row) return;
      latest = row;
      own.show(row);
      own.cells.name.fill(row.name);
      own.cells.name.element.title = row.display_name ? `${row.name}: ${row.display_name}` : row.name;
      tick();
      while (lines.length > row.lines.length) lines.pop().element.remove();
      row.lines.forEach((line, position) => {
        if (!lines[position]) element.insertBefore((lines[position] = runtimeLine("cmemu-replica")).element, below);
        lines[position].show({ ...line, exit: line.exit_code ?? "" });
      });
      if (!below.hidden) details.show(row);
    },
  };
}

// Make a line of the table. `show(row)` fills its cells; what a row does not have is left empty.
function runtimeLine(style, opener = null) {
  const cells = {};
  const element = el("tr", { class: style });
  for (const { kind, number } of RUNTIME_COLUMNS) {
    const cell = el("td", { class: runtimeCell(kind, number) });
    const text = kind === "name" && opener ? opener.lastChild : cell.appendChild(el("bdi"));
    if (kind === "name" && opener) cell.append(opener);
    element.append(cell);
    cells[kind] = { element: cell, fill: (value) => setText(text, String(value ?? "")) };
  }
  return {
    element,
    cells,
    show(row) {
      cells.name.fill(row.name);
      cells.name.element.title = row.name;
      cells.state.fill(row.state);
      cells.state.element.title = row.state;
      cells.state.element.className = `${runtimeCell("state")} ${row.tone && `cmemu-attention cmemu-${row.tone}`}`;
      cells.replicas.fill(row.replicas);
      cells.slots.fill(row.slots);
      cells.slots.element.className = `${runtimeCell("slots", true)} ${row.full ? "cmemu-attention cmemu-amber" : ""}`;
      cells.slots.element.title = row.full ? "Every slot is taken" : "";
      cells.queued.fill(row.queued);
      cells.running.fill(row.running);
      cells.exit.fill(row.exit);
      cells.pid.fill(row.pid);
    },
  };
}

// Make the details of a runtime: actions, and what else is known of it. An action that loses jobs is confirmed first.
function runtimeDetails(dashboard) {
  let row = null;
  const jobs = () => (row.running ? `${row.running.toLocaleString("en")} running ${row.running === 1 ? "job fails" : "jobs fail"}` : "no job is running");
  const run = async (action) => {
    const message = await dashboard.ask(action, { runtime: row.key });
    if (message) dashboard.say(message);
  };
  const restart = button("Restart…", "End every replica and launch it again with a new token", () => confirming.ask("Restart", `Restart the program: ${jobs()}, queued jobs stay queued.`, () => run("restart")));
  const stop = button("Stop…", "End every replica", () => confirming.ask("Stop", `Stop the program: ${jobs()}, queued jobs stay queued.`, () => run("stop")));
  const reset = button("Reset session…", "Delete the jobs and the schemas, and change the token; bindings stay", () =>
    confirming.ask("Reset", `Reset the session: ${jobs()}, its jobs and schemas are deleted, its token changes, and bindings stay.`, () => run("reset")),
  );
  const copy = button("Copy environment", "Copy what a program needs to run as one more replica, as lines for a terminal", async () => {
    const lines = await dashboard.ask("environment", { runtime: row.key });
    if (lines) dashboard.say((await copyText(lines)) ? "The environment was copied: paste it in a terminal." : `The browser does not let pages copy. In a cell: ${dashboard.emu()}.env(${JSON.stringify(row.key)})`);
  });
  const actions = el("div", { class: "cmemu-row" }, restart, stop, reset, copy);
  const confirming = confirmPart(actions);
  const facts = el("dl", { class: "cmemu-runtime-facts" });
  const element = el("div", { class: "cmemu-runtime-inside" }, actions, confirming.element, facts);

  function show(latest) {
    row = latest;
    restart.hidden = !row.restarts;
    stop.hidden = !row.stops;
    const some = (values) => (values.length ? values : ["none"]);
    const all = [...(row.display_name ? [["display name", row.display_name]] : []), ["apps", some(row.apps)], ["functions", some(row.functions)], ...row.facts];
    if (row.more) all.push(["replicas", `${row.more.toLocaleString("en")} more than are shown`]);
    const words = JSON.stringify(all);
    if (facts.dataset.words === words) return;
    facts.dataset.words = words;
    facts.replaceChildren(...all.map(([name, values]) => el("div", {}, el("dt", {}, name), el("dd", {}, [values].flat().map((value) => el("bdi", {}, value))))));
  }

  return { element, show };
}

// Return how long ago a moment was, in seconds since 1970 by the kernel's clock: "3 s", "2 min".
function sinceText(dashboard, at) {
  const seconds = Math.max(0, Math.floor((dashboard.now()) / 1000) - at);
  const [unit, length] = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]].find(([, length]) => seconds >= length) ?? ["s", 1];
  return `${Math.floor(seconds / length)} ${unit}`;
}
