// The Events tab: the newest events first.

function eventsPart(dashboard) {
  const kind = choice("Kind", "Only events of this kind");
  const text = searchField("Only events that contain this text", (value) => dashboard.look({ event_text: value }));
  const all = el("input", { type: "checkbox", title: "Also show empty polls and chunks of streams: there are thousands of them" });
  kind.select.addEventListener("change", () => dashboard.look({ event_kind: kind.select.value }));
  all.addEventListener("change", () => dashboard.look({ all_events: all.checked }));
  const withAll = el("label", { class: "cmemu-label" }, all, " all, with empty polls and chunks");
  const openJob = (id) => button(`…${id.slice(-6)}`, "Open this job", () => dashboard.look({ tab: "jobs", job: id }), { class: "cmemu-link" });
  const table = dataTable({
    caption: "Events, newest first",
    columns: [{ name: "At (UTC)", short: true }, { name: "Event", short: true }, { name: "Runtime" }, { name: "Job", short: true }, { name: "What happened" }],
    cellsOf: (row) => [row.at, row.kind, row.runtime, row.job && openJob(row.job), row.detail],
    hold: true,
    empty: () => (dashboard.model.get("events").every ? "No event matches these filters." : "Nothing has happened yet."),
  });
  return {
    element: el("div", {}, filterRow("Filter the events", kind.element, text.element, withAll), table.element),
    show() {
      const events = dashboard.model.get("events");
      if (!events.rows) return;
      kind.offer(events.kinds.map((value) => ({ value, words: value.replaceAll("_", " ") })));
      kind.choose(dashboard.options.event_kind);
      all.checked = dashboard.options.all_events;
      text.show(dashboard.options.event_text);
      table.update(events.rows, null, JSON.stringify(events.asked));
    },
    parts: ["events"],
  };
}
