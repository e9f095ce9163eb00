// The list of jobs: the newest first, and their filters.

// Make the list. `row(id)` returns the row of a job, and `step(by)` the id of the job before or after the open one;
// undefined if there is none.
function jobTable(dashboard) {
  const selects = {
    runtime: choice("Runtime", "Only jobs of this runtime"),
    function: choice("Function", "Only calls of this function"),
    status: choice("Status", "Only jobs with this status", ["queued", "running", "succeeded", "failed"]),
    outcome: choice("Outcome", "Only jobs with this outcome", ["ok", "function error", "failed"]),
  };
  for (const [name, { select }] of Object.entries(selects)) select.addEventListener("change", () => narrow({ [name]: select.value }));
  const text = searchField("Only jobs with this text in their id, names, query, result or error", (value) => narrow({ text: value }));
  const clear = button("Clear filters", "Show every job", () => narrow({ runtime: "", function: "", status: "", outcome: "", text: "" }));
  const filters = filterRow("Filter the jobs", Object.values(selects).map(({ element }) => element), text.element, clear);

  const counted = el("p", { class: "cmemu-note", role: "status" });
  const table = dataTable({
    caption: "Jobs, newest first",
    columns: [
      { name: "Function" },
      { name: "Runtime" },
      { name: "State", title: "The status, and the outcome where that says more" },
      { name: "Queued at (UTC)", short: true },
      { name: "Queue time", number: true },
      { name: "Run time", number: true },
      { name: "Job", short: true },
    ],
    cellsOf: (row) => [row.function, row.runtime, row.state, row.queued_at, row.queue_time, row.run_time, `…${row.key.slice(-6)}`],
    onopen: (key) => dashboard.look({ job: dashboard.options.job === key ? "" : key }),
    hold: true,
    empty: () =>
      dashboard.model.get("jobs").every
        ? "No job matches these filters. Clear filters shows every job."
        : `There are no jobs yet. In a cell: ${dashboard.emu()}.call("name", {...}) or ${dashboard.emu()}.submit("name", {...}); here: Functions, and try one.`,
  });
  const more = button("Show more", "Show 50 more jobs", () => dashboard.look({ most: dashboard.options.most + 50 }));

  function narrow(changes) {
    dashboard.look({ filter: { ...dashboard.options.filter, ...changes } });
    show();
  }

  function show() {
    const jobs = dashboard.model.get("jobs");
    const wanted = dashboard.options.filter;
    if (!jobs.rows) return;
    const choices = dashboard.model.get("choices");
    selects.runtime.offer(choices.runtimes || []);
    selects.function.offer(choices.functions || []);
    for (const [name, { choose }] of Object.entries(selects)) choose(wanted[name]);
    text.show(wanted.text);
    clear.hidden = !Object.values(wanted).some(Boolean);
    setText(counted, jobs.every ? `${jobs.rows.length} of ${jobs.found.toLocaleString("en")} shown${jobs.found === jobs.every ? "" : `, ${jobs.every.toLocaleString("en")} in all`}` : "");
    more.hidden = jobs.rows.length >= jobs.found || dashboard.options.most >= 500;
    table.update(jobs.rows, dashboard.options.job, JSON.stringify(jobs.asked));
  }

  const rowsNow = () => dashboard.model.get("jobs").rows || [];
  const row = (id) => rowsNow().find(({ key }) => key === id);

  function step(by) {
    const rows = rowsNow();
    const at = rows.findIndex(({ key }) => key === dashboard.options.job);
    return rows[at < 0 ? 0 : at + by]?.key;
  }

  return { element: el("div", {}, filters, counted, table.element, more), show, row, step };
}
