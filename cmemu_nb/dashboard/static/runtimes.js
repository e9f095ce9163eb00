// The Runtimes tab: last polls, counts of jobs, replicas, bindings and functions.

function runtimesPart(dashboard) {
  const table = dataTable({
    caption: "Runtimes",
    columns: [
      { name: "Runtime" },
      { name: "State", title: "connected: a module polls. stale: no poll for longer than a poll may wait. never polled: no module has connected yet. pipeline: its module takes no jobs" },
      { name: "Last poll" },
      { name: "Queued", number: true },
      { name: "Running", number: true },
      { name: "Replicas", title: "Copies of a module, each with its own token" },
      { name: "Bound apps and branches" },
      { name: "Functions" },
    ],
    cellsOf: (row) => [
      row.display_name ? `${row.name} (${row.display_name})` : row.name,
      row.state,
      row.last_poll,
      row.queued,
      row.running,
      row.replicas,
      row.apps,
      row.functions,
    ],
    actionsOf: (row) => [
      sureButton("Reset", `Reset the session of ${row.name}: jobs and schemas are deleted, bindings stay, the token changes`, async () => {
        const message = await dashboard.ask("reset", { runtime: row.key });
        if (message) dashboard.say(message);
      }),
      button("Copy environment", `Copy what a program needs to run as one more replica of ${row.name}, as lines for a terminal`, async () => {
        const lines = await dashboard.ask("environment", { runtime: row.key });
        if (lines) dashboard.say((await copyText(lines)) ? "The environment was copied: paste it in a terminal." : `The browser does not let pages copy. In a cell: ${dashboard.emu()}.env(${JSON.stringify(row.key)})`);
      }),
    ],
    wide: true,
    empty: () =>
      `There are no runtimes. @${dashboard.emu()}.function above a function opens one, ${dashboard.emu()}.open_runtime("my-runtime", deployed_app_rid="ri...") another, ${dashboard.emu()}.launch("python app.py") a third.`,
  });
  const more = el("p", { class: "cmemu-note" });
  return {
    element: el("div", {}, table.element, more),
    show() {
      const { rows, every } = dashboard.model.get("runtimes");
      table.update(rows || []);
      setText(more, rows && every > rows.length ? `The newest ${rows.length} of ${every.toLocaleString("en")}: ${dashboard.emu()}.runtimes has all.` : "");
    },
    parts: ["runtimes"],
  };
}

// Make a button that must be pressed twice, for an action that can't be undone.
function sureButton(text, title, onsure) {
  const made = button(text, title, () => {
    if (made.dataset.asked) onsure();
    made.dataset.asked = made.dataset.asked ? "" : "yes";
    setText(made, made.dataset.asked ? `${text}: sure?` : text);
  });
  made.addEventListener("blur", () => {
    made.dataset.asked = "";
    setText(made, text);
  });
  return made;
}
