// The list of jobs: the search line and the filters above it, and one line for each job.

const JOB_TONES = { running: "blue", error: "amber", failed: "red" };
const JOB_OUTCOMES = [
  { value: "queued", words: "queued" },
  { value: "running", words: "running" },
  { value: "ok", words: "ok" },
  { value: "function error", words: "error" },
  { value: "failed", words: "failed" },
];
const SEARCH_TITLE = 'Words in ids, names, queries, results and errors, and conditions: fn:add, outcome:error, status:running, runtime:name, id:a4c966, x=493 for a field, "in quotes", -fn:add without; * is any text';
const MAX_NAME = 60;

// Make the list. `row(id)` returns the row of a job, and `step(by)` the id of the job before or after the open one; undefined if
// there is none. `tick()` shows what has changed because time has passed.
function jobTable(dashboard) {
  const selects = {
    outcome: choice("Outcome", "Only jobs that are queued or running, or ended this way", JOB_OUTCOMES),
    function: choice("Function", "Only calls of this function"),
    runtime: choice("Runtime", "Only jobs of this runtime"),
  };
  selects.outcome.select.addEventListener("change", () => narrow(filterOf(selects.outcome.select.value)));
  for (const name of ["function", "runtime"]) selects[name].select.addEventListener("change", () => narrow({ [name]: selects[name].select.value }));
  const search = searchField(SEARCH_TITLE, (text) => narrow({ text }), { name: "Search", placeholder: 'Search, or fn:add outcome:error x=493 "text"', ontype: show });
  const clear = button("Clear", "Clear the search and the filters: show every job", () => {
    search.clear();
    narrow({ runtime: "", function: "", status: "", outcome: "", text: "" });
  });
  const filters = filterRow("Filter the jobs", search.element, Object.values(selects).map(({ element }) => element), clear);
  const problem = el("p", { class: "cmemu-note", role: "status" });

  let longest = 0;
  let runtimes = 0;
  const table = lineTable({
    caption: "Jobs: running, queued, then the newest",
    columns: [
      { name: "Outcome", width: 76, title: "queued, running, ok, error (the function raised) or failed", fill: fillOutcome },
      { name: "Function", share: 7, opens: true },
      { name: "Runtime", share: 4, from: 900, when: () => runtimes > 1 },
      { name: "Query", share: 9, from: 620 },
      { name: "Result or error", share: 9, from: 320 },
      { name: "Time", width: 132, number: true, from: 520, title: "From submission to the end: the light part queued, the dark part running", fill: fillTimes, live: true },
      { name: "Queued", width: 84, number: true, from: 440, title: "How long ago the job was submitted", fill: fillAge, live: true },
      { name: "Job", width: 90, from: 900, title: "The end of the job's id" },
    ],
    cellsOf: (row) => [null, row.function, row.runtime, row.query, row.result, null, null, `…${row.key.slice(-6)}`],
    onopen: (key) => dashboard.look({ job: dashboard.options.job === key ? "" : key }),
    empty: nothing,
  });
  const counted = el("span", { role: "status" });
  const more = button("Show more", "Show 50 more jobs", () => dashboard.look({ most: dashboard.options.most + 50 }));
  const foot = el("div", { class: "cmemu-row cmemu-note cmemu-foot" }, counted, more);

  function narrow(changes) {
    dashboard.look({ filter: { ...dashboard.options.filter, ...changes } });
  }

  function show() {
    const jobs = dashboard.model.get("jobs");
    if (!jobs.rows && !dashboard.model.get("newest")?.rows) return;
    const wanted = dashboard.options.filter;
    const choices = dashboard.model.get("choices");
    runtimes = choices.runtimes?.length ?? 0;
    selects.runtime.offer(choices.runtimes || []);
    selects.runtime.element.hidden = runtimes < 2 && !wanted.runtime;
    selects.function.offer(choices.functions || []);
    selects.function.choose(wanted.function);
    selects.runtime.choose(wanted.runtime);
    selects.outcome.choose(wanted.outcome || wanted.status);
    search.show(wanted.text);
    const found = searched({ ...wanted, text: search.text() });
    // Its place stays, so that the filters do not move under the pointer.
    clear.style.visibility = search.text() || Object.values(wanted).some(Boolean) ? "visible" : "hidden";
    setText(problem, found.problem);
    setText(counted, found.rows.length || jobs.every ? found.words : "");
    more.hidden = !found.complete || jobs.rows.length >= jobs.found || dashboard.options.most >= 500;
    measure(found.rows);
    table.update(found.rows, dashboard.options.job, JSON.stringify([wanted, search.text(), dashboard.options.most]));
  }

  function measure(rows) {
    longest = Math.max(...rows.map((row) => spent(row).reduce((sum, each) => sum + each)));
  }

  // The longest job may be one that runs, so the bars have another scale at every tick.
  function tick() {
    measure(table.rows());
    table.tick();
  }

  // Return the rows to show for a filter: those that the kernel has found, or, before it has answered, the fitting ones of those
  // that are here.
  function searched(wanted) {
    const { rows = [], found, every, asked = [{}] } = dashboard.model.get("jobs");
    const { rows: newest, every: all } = dashboard.model.get("newest") ?? {};
    const { terms, problem: wrong } = searchTerms(wanted.text);
    // While a cell keeps the kernel from receiving what was chosen, it may take another tab for the open one.
    const current = !newest || dashboard.model.get("options").tab === "jobs";
    if (current && Object.keys(wanted).every((name) => wanted[name] === asked[0][name])) {
      const [shown, matching] = [rows.length, found].map((count) => count.toLocaleString("en"));
      return { rows, problem: wrong, complete: true, words: `${shown} of ${matching}${found === every ? " jobs" : ` found, ${every.toLocaleString("en")} in all`}` };
    }
    const here = newest || rows;
    const fitting = here.filter((row) => fits(row, wanted) && searchMatches(terms, row));
    const words = `${fitting.length.toLocaleString("en")} of the newest ${here.length.toLocaleString("en")} jobs${all > here.length ? "; older ones are searched when the cell ends" : ""}`;
    return { rows: newest ? fitting.slice(0, dashboard.options.most) : fitting, problem: wrong, complete: false, words };
  }

  function step(by) {
    const rows = table.rows();
    const at = rows.findIndex((row) => row.key === dashboard.options.job);
    return rows[at < 0 ? 0 : at + by]?.key;
  }

  function nothing() {
    if (!dashboard.model.get("jobs").every && !dashboard.model.get("newest")?.every) return `There are no jobs yet. A cell submits one with ${dashboard.emu()}.submit("name", {...}) or ${dashboard.emu()}.call("name", {...}), and the Functions tab with a form.`;
    const names = searchTerms(search.text()).terms.find(({ key, value }) => ["fn", "runtime"].includes(key) && !value.includes("*"));
    return names ? `No job matches. ${names.key}: takes a whole name; ${names.key}:*${names.value}* finds a part of it.` : "No job matches. Clear shows every job.";
  }

  function fillTimes(cell, row) {
    if (!cell.firstChild) cell.append(el("div", { class: "cmemu-spent" }, el("span", { class: "cmemu-times", "aria-hidden": "true" }, el("i", { class: "cmemu-wait" }), el("i", { class: "cmemu-run" })), el("span")));
    const [waited, ran] = spent(row);
    const [bar, words] = cell.firstChild.children;
    [waited, ran].forEach((time, position) => (bar.children[position].style.width = `${longest ? (100 * time) / longest : 0}%`));
    bar.toggleAttribute("data-running", row.outcome === "running");
    setText(words, durationText(waited + ran));
    cell.title = row.started === null ? `queued for ${durationText(waited)}` : `queued for ${durationText(waited)}, ${row.run === null ? "running" : "ran"} for ${durationText(ran)}`;
  }

  // Return for how many milliseconds a job was queued, and ran, up to now.
  function spent(row) {
    const until = (from) => Math.max(0, dashboard.now() - from);
    const waited = row.wait ?? (row.outcome === "queued" ? until(row.queued) : 0);
    return [waited, row.run ?? (row.outcome === "running" ? until(row.started) : 0)];
  }

  function fillAge(cell, row) {
    setText(cell, agoText(dashboard.now() - row.queued));
    if (!cell.title) cell.title = `queued at ${new Date(row.queued).toISOString().replace("T", " ").replace("Z", " UTC")}`;
  }

  const row = (id) => table.rows().find(({ key }) => key === id);

  return { element: el("div", {}, filters, problem, table.element, foot), show, row, step, tick };
}

function fillOutcome(cell, row) {
  if (cell.dataset.outcome === row.outcome) return;
  cell.dataset.outcome = row.outcome;
  cell.replaceChildren(el("span", { class: `cmemu-outcome cmemu-outcome-${JOB_TONES[row.outcome] || "plain"}` }, row.outcome));
}

// Return the part of the jobs' filter for a chosen outcome.
function filterOf(outcome) {
  const status = outcome === "queued" || outcome === "running";
  return { status: status ? outcome : "", outcome: status ? "" : outcome };
}

// Return whether a row fits the filters beside the search line.
function fits(row, wanted) {
  const outcome = wanted.outcome === "function error" ? "error" : wanted.outcome;
  const name = (value) => (value.length > MAX_NAME ? `${visible(value.slice(0, MAX_NAME))}…` : visible(value));
  if (wanted.function && row.function !== name(wanted.function)) return false;
  if (wanted.runtime && row.runtime !== name(wanted.runtime)) return false;
  return (!wanted.status || row.status === wanted.status) && (!outcome || row.outcome === outcome);
}
