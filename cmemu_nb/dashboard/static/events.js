// The Events tab: the newest events first, those of a job in one line that a click unfolds. It can be paused.

function eventsPart(dashboard) {
  const kind = choice("Kind", "Only events of this kind");
  const text = searchField("Only events that contain this text", (value) => dashboard.look({ event_text: value }));
  const all = el("input", { type: "checkbox", title: "Also show empty polls, chunks of streams and other events that come by the thousand" });
  kind.select.addEventListener("change", () => dashboard.look({ event_kind: kind.select.value }));
  all.addEventListener("change", () => dashboard.look({ all_events: all.checked }));
  const withAll = el("label", { class: "cmemu-label" }, all, " all, with empty polls and chunks");
  const pause = button("Pause", "Show no newer events until Resume is pressed; the filters still work", () => dashboard.look({ event_pause: dashboard.options.event_pause ? 0 : dashboard.model.get("events").newest }));
  const newer = el("span", { class: "cmemu-muted cmemu-events-newer", role: "status" });
  const tail = el("div", { class: "cmemu-events-tail" }, newer, pause);
  const list = eventList(dashboard);
  return {
    element: el("div", {}, el("div", { class: "cmemu-events-top" }, filterRow("Filter the events", kind.element, text.element, withAll), tail), list.element),
    show() {
      const events = dashboard.model.get("events");
      if (!events.lines) return;
      const { event_text, event_kind, all_events, event_pause } = dashboard.options;
      kind.offer(events.kinds.map((value) => ({ value, words: value })));
      kind.choose(event_kind);
      all.checked = all_events;
      text.show(event_text);
      setText(pause, event_pause ? "Resume" : "Pause");
      pause.disabled = !event_pause && !events.newest;
      setText(newer, event_pause ? `${events.newer.toLocaleString("en")} new` : "");
      // What was there before the pause, or before the filter was changed, stays until the kernel has answered.
      const asked = JSON.stringify([event_text, event_kind, all_events, event_pause]);
      if (JSON.stringify(events.asked) === asked) list.update(events.lines, asked, events.every);
    },
    parts: ["events"],
  };
}

// Make the list. While the pointer moves over it, no line is added or moved, unless the filter has changed.
function eventList(dashboard) {
  const heads = [["at", "Time", "In UTC"], ["kind", "Event"], ["detail", "What happened"], ["runtime", "Runtime"], ["job", "Job", "A click opens the job"]];
  const table = el("table", { class: "cmemu-events", "aria-label": "Events, newest first" }, el("thead", {}, el("tr", {}, heads.map(([name, words, title]) => el("th", { scope: "col", title: title || words, class: `cmemu-event-${name}` }, words)))));
  const nothing = el("p", { class: "cmemu-empty" });
  const note = el("p", { class: "cmemu-note", role: "status" });
  const entries = new Map();
  const update = roving(table, ".cmemu-event-open");
  let latest = { lines: [], asked: "", every: 0 };
  let pointedAt = 0;
  let timer = null;

  function show() {
    const { lines, every } = latest;
    // Without newer lines nothing would move, so removed lines may disappear.
    const held = entries.size > 0 && Date.now() - pointedAt < HOLD_MS && lines.some(({ key }) => !entries.has(key));
    clearTimeout(timer);
    if (held) timer = setTimeout(show, HOLD_MS);
    const wanted = held ? lines.filter(({ key }) => entries.has(key)) : lines;
    const waiting = lines.length - wanted.length;
    setText(note, waiting ? `${waiting} newer ${waiting === 1 ? "waits" : "wait"} while the pointer moves over the list.` : "");
    const keys = new Set(lines.map(({ key }) => key));
    for (const [key, { element }] of held ? [] : entries) {
      if (keys.has(key)) continue;
      element.remove();
      entries.delete(key);
    }
    let before = table.tHead;
    for (const line of wanted) {
      if (!entries.has(line.key)) entries.set(line.key, line.job ? jobEvents(dashboard) : oneEvent());
      const entry = entries.get(line.key);
      entry.show(line);
      if (!held && before.nextSibling !== entry.element) table.insertBefore(entry.element, before.nextSibling);
      before = entry.element;
    }
    update();
    table.hidden = !entries.size;
    nothing.hidden = Boolean(entries.size);
    setText(nothing, every ? "No event matches these filters." : "Nothing has happened yet.");
  }

  table.addEventListener("pointermove", () => (pointedAt = Date.now()));
  table.addEventListener("pointerleave", () => {
    pointedAt = 0;
    show();
  });
  return {
    element: el("div", {}, el("div", { class: "cmemu-events-scroll" }, table), nothing, note),
    update(lines, asked, every) {
      if (asked !== latest.asked) pointedAt = 0;
      latest = { lines, asked, every };
      show();
    },
  };
}

// Make a row of the list; returns it with its cells by name.
function eventRow(style) {
  const names = ["at", "kind", "detail", "runtime", "job"];
  const cells = Object.fromEntries(names.map((name) => [name, el("td", { class: `cmemu-event-${name}` })]));
  return { element: el("tr", { class: style }, Object.values(cells)), cells };
}

function fillEvent(cells, { at, kind, runtime = "", detail }) {
  setText(cells.at, at);
  setText(cells.kind, kind);
  cells.kind.title = kind;
  setText(cells.runtime, runtime);
  setText(cells.detail, detail);
  cells.detail.title = detail;
  cells.runtime.title = runtime;
}

// Make the line of an event that belongs to no job.
function oneEvent() {
  const row = eventRow("cmemu-event");
  return { element: el("tbody", {}, row.element), show: (line) => fillEvent(row.cells, line) };
}

// Make the line of a job's events: its states with how long each lasted. A click shows the events below it.
function jobEvents(dashboard) {
  const { element: line, cells } = eventRow("cmemu-event cmemu-event-group");
  const name = el("bdi");
  const opener = button("", "Show or hide the events of this job", null, { class: "cmemu-link cmemu-event-open", "aria-expanded": "false" });
  opener.append(el("span", { class: "cmemu-chevron", "aria-hidden": "true" }), name);
  cells.kind.append(opener);
  const open = button("", "Open this job", (event) => {
    event.stopPropagation();
    dashboard.look({ tab: "jobs", job: latest.job });
  }, { class: "cmemu-link" });
  cells.job.append(open);
  const element = el("tbody", {}, line);
  let latest = null;
  let words = "";
  let unfolded = false;

  line.addEventListener("click", () => {
    unfolded = !unfolded;
    opener.setAttribute("aria-expanded", String(unfolded));
    showEvents();
  });

  function showEvents() {
    const rows = unfolded ? latest.events : [];
    while (element.rows.length - 1 > rows.length) element.lastChild.remove();
    rows.forEach((event, position) => {
      if (element.rows.length - 1 <= position) element.append(eventRow("cmemu-event cmemu-event-inner").element);
      const [at, kind, detail, runtime] = element.rows[position + 1].cells;
      fillEvent({ at, kind, detail, runtime }, event);
    });
  }

  function show(row) {
    const now = JSON.stringify(row);
    if (now === words) return;
    [words, latest] = [now, row];
    setText(cells.at, row.at);
    setText(name, row.function || "a removed job");
    opener.title = `Show or hide the events of ${row.function || "a removed job"}`;
    setText(cells.runtime, row.runtime);
    cells.runtime.title = row.runtime;
    setText(open, `…${row.job.slice(-6)}`);
    cells.detail.replaceChildren(...row.chain.flatMap((step, position) => [position ? " → " : "", chainStep(step)]));
    cells.detail.title = cells.detail.textContent;
    showEvents();
  }

  return { element, show };
}

function chainStep([word, time, tone]) {
  return el("span", {}, el("span", { class: tone && `cmemu-attention cmemu-${tone}` }, word), time && el("span", { class: "cmemu-muted" }, ` ${time}`));
}
