// The Timeline tab: which executor ran which job and when, how many were queued, and what else happened.

const WINDOWS = { "30 s": 30000, "5 min": 300000, all: null };
const COLOURS_MEAN = { outcome: "Outcome", function: "Function" };
const SHORTEST_VIEW = 0.05; // milliseconds
const REDRAW_MS = 200;
const MISSING_MS = 1500;
const PEEK_MS = 150;
const NUMBERS_MS = 1000;
const NEAR_PIXELS = 4;
const DRAGGED_PIXELS = 4;
const HELP = "Left and right move, + and - zoom, 0 shows everything again. Up and down choose a job, Enter opens it.";
const POINTER_HELP = "Drag to move, Ctrl and the wheel zoom, a double click shows everything again, a click on a job opens it.";

function timelinePart(dashboard) {
  const jobs = new TimelineJobs();
  const canvas = el("canvas", { "aria-hidden": "true" });
  const labels = el("div", { class: "cmemu-timeline-labels", "aria-hidden": "true" });
  const field = el("div", { class: "cmemu-timeline-canvas", tabindex: "0", role: "application", "aria-roledescription": "timeline" }, canvas);
  const axis = el("div", { class: "cmemu-timeline-axis", "aria-hidden": "true" });
  const legend = el("ul", { class: "cmemu-timeline-legend", "aria-label": "Colours" });
  const count = el("span", { class: "cmemu-timeline-count", title: `${POINTER_HELP} ${HELP}` });
  const tip = el("div", { class: "cmemu-timeline-tip", hidden: true, "aria-hidden": "true" });
  const spoken = el("div", { class: "cmemu-timeline-spoken", role: "status" });
  const empty = el("p", { class: "cmemu-empty", hidden: true });
  const table = timelineTable(() => {
    numbered.at = -Infinity;
    request();
  });
  const latency = latencyPart();
  const drawing = new TimelineCanvas(canvas);
  let fixed = null; // the view, once it does not follow the present any more
  let follow = null; // the length that was zoomed to while the present is followed, or null for that of the window
  let hovered = null;
  let selected = null;
  let picture = null;

  const options = () => dashboard.options.timeline;
  const choose = (changes) => dashboard.look({ timeline: { ...options(), ...changes } });
  const windows = choiceButtons("Window", { "30 s": "30 s", "5 min": "5 min", all: "All" }, (name) => (name === "all" ? "Show all jobs" : `Show the last ${name}`), (name) => {
    reset();
    choose({ window: name });
  });
  const colours = choiceButtons("Colour by", COLOURS_MEAN, (name) => `Colours show the ${name}`, (name) => choose({ colour: name }));
  const live = button("Live", "Follow the present (End)", () => (reset(), request()), { "aria-pressed": "true" });
  const zoom = el("span", { class: "cmemu-row", role: "group", "aria-label": "Zoom" }, button("−", "Zoom out (-)", () => zoomBy(2), { "aria-label": "Zoom out" }), button("+", "Zoom in (+)", () => zoomBy(0.5), { "aria-label": "Zoom in" }), live);
  const plot = el("div", { class: "cmemu-timeline-plot" }, labels, field);
  const body = el("div", {}, legend, plot, axis, latency.element, table.element);
  const element = el("div", { class: "cmemu-timeline" }, el("div", { class: "cmemu-timeline-bar" }, windows.element, zoom, colours.element, count), empty, body, spoken, tip);

  // The view

  function reset() {
    fixed = follow = null;
  }

  const running = () => Boolean(dashboard.model.get("flow").running);
  const present = () => jobs.present(running() && Date.now() - flowAt < 3 * MISSING_MS);

  function currentView(now) {
    if (fixed) return fixed;
    const length = follow ?? WINDOWS[options().window];
    if (length) return { from: now - length, to: now };
    const { from, to } = jobs.extent(now) ?? { from: now - 1000, to: now };
    const margin = (to - from) * 0.01;
    return { from: from - margin, to: to === now ? to : to + margin };
  }

  function zoomBy(factor, at = null) {
    if (!picture) return;
    const { from, to } = picture.view;
    const length = Math.max((to - from) * factor, SHORTEST_VIEW);
    if (at === null && !fixed && to === picture.now) follow = length;
    else {
      const centre = at ?? (from + to) / 2;
      const share = (centre - from) / (to - from);
      fixed = { from: centre - share * length, to: centre + (1 - share) * length };
    }
    request();
  }

  function panBy(milliseconds) {
    const { from, to } = picture.view;
    fixed = { from: from + milliseconds, to: to + milliseconds };
    request();
  }

  // Drawing

  let requested = false;
  function request() {
    if (requested) return;
    requested = true;
    requestAnimationFrame(() => {
      requested = false;
      if (element.isConnected && dashboard.options.tab === "timeline") draw();
    });
  }

  function draw() {
    windows.show(fixed || follow ? null : options().window);
    colours.show(options().colour);
    live.setAttribute("aria-pressed", String(!fixed));
    empty.hidden = jobs.count > 0;
    body.hidden = jobs.count === 0;
    setText(empty, jobs.number ? `There are no jobs yet. A cell submits one with ${dashboard.emu()}.submit("name", {...}), and the Functions tab with a form.` : "The timeline is shown as soon as the emulator has sent it.");
    setText(count, countText());
    if (!jobs.count) return;
    const now = present();
    const view = currentView(now);
    const width = Math.max(50, Math.floor(field.clientWidth));
    const { rows, height } = timelineRows(jobs, view, now);
    const base = view.to === now ? now : -jobs.origin % 86400000;
    const { step, ticks } = timelineTicks(view, width, base);
    picture = { jobs, view, now, width, height, rows, ticks, coloursMean: options().colour, hovered, selected };
    drawing.draw(picture);
    showLabels(rows, height);
    showAxis(ticks, step, view, now, width);
    showLegend();
    showNumbers(view, now, rows);
  }

  function countText() {
    const shown = `${jobs.count.toLocaleString("en")} ${jobs.count === 1 ? "job" : "jobs"}`;
    return jobs.waiting ? `${shown}, ${jobs.waiting.toLocaleString("en")} older ones are being sent` : shown;
  }

  function showLabels(rows, height) {
    labels.style.height = `${height}px`;
    const wanted = JSON.stringify(rows.map(({ label, top, most }) => [label, top, most]));
    if (labels.dataset.rows === wanted) return;
    labels.dataset.rows = wanted;
    labels.replaceChildren(...rows.map((row) => styled({ top: `${row.top}px`, height: `${row.height}px` }, "div", { class: `cmemu-timeline-${row.kind}`, title: row.label }, el("bdi", {}, row.label), row.kind === "queue" ? el("span", { class: "cmemu-muted", title: "The most jobs that were queued at a time" }, `max ${row.most.toLocaleString("en")}`) : null)));
  }

  function showAxis(ticks, step, view, now, width) {
    const text = (at) => (view.to === now ? (Math.abs(now - at) < step / 2 ? "now" : `-${durationText(Math.round((now - at) / step) * step)}`) : clockText(jobs.origin + at, step));
    const places = ticks.map((at) => [text(at), ((at - view.from) / (view.to - view.from)) * width]);
    axis.replaceChildren(...places.map(([words, x]) => styled({ left: `${Math.min(x, width - 4 * words.length).toFixed(1)}px` }, "span", {}, words)));
    axis.title = view.to === now ? "Time before the present" : "Time of day, UTC";
  }

  function showLegend() {
    const byFunction = options().colour === "function";
    const names = byFunction ? jobs.names.functions.slice(0, FUNCTION_COLOURS) : JOB_STATES;
    const colour = (index) => (byFunction ? `function${index}` : ["queue", "running", "ok", "error", "failed"][index]);
    const items = names.map((name, index) => [name, colour(index)]);
    if (byFunction && jobs.names.functions.length > FUNCTION_COLOURS) items.push(["others", "others"]);
    if (byFunction) items.push(["running", "running"], ["function error", "error"], ["failed", "failed"]);
    const wanted = JSON.stringify(items);
    if (legend.dataset.items === wanted) return;
    legend.dataset.items = wanted;
    legend.replaceChildren(...items.map(([name, key]) => el("li", { title: name }, styled({ background: `var(--cmemu-timeline-${key})` }, "span", { class: "cmemu-timeline-swatch" }), el("bdi", {}, name))));
  }

  let numbered = { at: -Infinity, fixed: null };

  // Show in numbers what the picture shows, at most once a second.
  function showNumbers(view, now, rows) {
    if (performance.now() - numbered.at < NUMBERS_MS && fixed === numbered.fixed) return;
    numbered = { at: performance.now(), fixed };
    const places = placesIn(jobs, view, now);
    latency.show(jobs, places);
    table.show(jobs, places, view, now);
    const counts = countStates(jobs, places);
    const lanes = rows.filter(({ kind }) => kind === "lane").length;
    field.setAttribute("aria-label", `Timeline of ${durationText(view.to - view.from)}: ${countsText(counts)}, in ${lanes} ${lanes === 1 ? "lane" : "lanes"}. ${HELP}`);
  }

  // What is under the pointer, and what the keys have chosen

  function find(x, y) {
    const row = picture?.rows.find(({ top, height }) => y >= top && y < top + height);
    if (!row || row.kind === "runtime" || row.kind === "more") return null;
    const { view, now, width } = picture;
    const length = (view.to - view.from) / width;
    const at = view.from + x * length;
    if (row.kind === "events") return { row, marks: jobs.marks.filter((mark) => Math.abs(mark.at - at) <= NEAR_PIXELS * length) };
    const near = [];
    for (let place = 0; place < jobs.id.length; place += 1) {
      if (jobs.state[place] === REMOVED) continue;
      const failedInQueue = row.kind === "queue" && jobs.lane[place] < 0 && jobs.state[place] === FAILED && jobs.runtime[place] === row.runtime;
      if (row.kind === "lane" ? jobs.lane[place] !== row.lane : !failedInQueue) continue;
      const begin = jobs.begin(place);
      const end = Math.min(jobs.ended[place], Math.max(now, begin));
      const distance = Math.max(begin - at, at - end, 0) / length;
      if (distance <= (failedInQueue ? NEAR_PIXELS : 1)) near.push([distance, place]);
    }
    near.sort((one, other) => one[0] - other[0] || jobs.state[other[1]] - jobs.state[one[1]]);
    const places = near.map(([, place]) => place);
    return { row, at, depth: row.kind === "queue" ? row.depths[Math.min(Math.max(Math.floor(x), 0), width - 1)] : 0, places, several: places.length > 1 && near[1][0] === 0 && (jobs.ended[places[0]] - jobs.begin(places[0])) / length < NARROWEST_BAR };
  }

  function timesText(place, now) {
    const wait = Math.min(jobs.left[place], now) - jobs.queued[place];
    if (jobs.lane[place] < 0) return `waited ${durationText(wait)}, never ran`;
    const run = Math.min(jobs.ended[place], now) - jobs.left[place];
    return `waited ${durationText(wait)}, ${jobs.state[place] === RUNNING ? "running for" : "ran"} ${durationText(run)}`;
  }

  function jobLines(place) {
    const state = JOB_STATES[jobs.state[place]];
    const lane = jobs.names.lanes[jobs.lane[place]]?.[3];
    return [`${jobs.names.functions[jobs.function[place]]} · ${state}`, timesText(place, present()), [lane, `…${jobs.id[place].slice(-6)}`, clockText(jobs.origin + jobs.begin(place), 1)].filter(Boolean).join(" · ")];
  }

  function foundLines(found) {
    if (found.marks) return found.marks.slice(0, 4).flatMap((mark) => [`${mark.words} · ${clockText(jobs.origin + mark.at, 1)}`, [mark.runtime, mark.detail].filter(Boolean).join(": ")]);
    if (found.several) return [`${found.places.length} jobs: ${countsText(countStates(jobs, found.places))}`, "Click to zoom in"];
    if (found.places.length) return jobLines(found.places[0]);
    return found.row.kind === "queue" && found.depth ? [`${found.depth.toLocaleString("en")} queued`, clockText(jobs.origin + found.at, 1)] : [];
  }

  const queries = new Map();
  let peeking = null;

  // Fill in the beginning of the query, which Python sends for one job at a time.
  function peek(id, line) {
    clearTimeout(peeking);
    if (queries.has(id)) return setText(line, queries.get(id));
    peeking = setTimeout(async () => {
      const text = await dashboard.ask("peek", { job: id }, () => {});
      if (text === null) return;
      if (queries.size > 200) queries.clear();
      queries.set(id, text);
      setText(line, text);
    }, PEEK_MS);
  }

  function showTip(lines, x, y, id = null) {
    tip.hidden = lines.length === 0;
    if (tip.hidden) return clearTimeout(peeking);
    const query = id ? el("div", { class: "cmemu-timeline-query" }) : null;
    tip.replaceChildren(...lines.map((line, index) => el("div", {}, index ? line : el("strong", {}, line))), ...(query ? [query] : []));
    if (query) peek(id, query);
    const box = element.getBoundingClientRect();
    const place = field.getBoundingClientRect();
    const left = place.left - box.left + x;
    tip.style.left = `${Math.max(0, Math.min(left + 12, box.width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${place.top - box.top + y + 16}px`;
  }

  function point(event) {
    const box = field.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  function hover(event) {
    const [x, y] = point(event);
    const found = find(x, y);
    const id = found?.places?.length && !found.several ? jobs.id[found.places[0]] : null;
    field.toggleAttribute("data-over", Boolean(id || found?.several));
    if (id !== hovered || !id) showTip(found ? foundLines(found) : [], x, y, id);
    if (id === hovered) return;
    hovered = id;
    request();
  }

  function leave() {
    showTip([]);
    field.removeAttribute("data-over");
    if (hovered) request();
    hovered = null;
  }

  function openFound(event) {
    const found = find(...point(event));
    if (found?.several) zoomBy(0.125, found.at);
    else if (found?.places?.length) openJob(jobs.id[found.places[0]]);
  }

  const openJob = (id) => dashboard.look({ tab: "jobs", job: id });

  function select(id) {
    selected = id;
    showTip([]);
    if (id === null) return request();
    const place = jobs.places.get(id);
    const [begin, { from, to }] = [jobs.begin(place), picture.view];
    if (begin < from || begin > to) fixed = { from: begin - (to - from) / 2, to: begin + (to - from) / 2 };
    setText(spoken, jobLines(place).join(", "));
    draw();
    const row = picture.rows.find((each) => (jobs.lane[place] < 0 ? each.kind === "queue" && each.runtime === jobs.runtime[place] : each.lane === jobs.lane[place]));
    if (!row) return;
    if (row.top < plot.scrollTop || row.top + row.height > plot.scrollTop + plot.clientHeight) plot.scrollTop = row.top - plot.clientHeight / 2;
    showTip(jobLines(place), drawing.x(begin), row.top + row.height / 2 - plot.scrollTop + plot.scrollTop, id);
  }

  // Keys, wheel and pointers

  const actions = {
    ArrowLeft: () => panBy(-(picture.view.to - picture.view.from) / 8),
    ArrowRight: () => panBy((picture.view.to - picture.view.from) / 8),
    ArrowDown: () => select(jobs.neighbour(selected, 1) ?? selected),
    ArrowUp: () => select(jobs.neighbour(selected, -1) ?? selected),
    Home: () => select(jobs.neighbour(null, 1)),
    End: () => (reset(), request()),
    "+": () => zoomBy(0.5),
    "=": () => zoomBy(0.5),
    "-": () => zoomBy(2),
    0: () => (reset(), request()),
    Enter: () => selected && openJob(selected),
    Escape: () => select(null),
  };
  field.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !picture || !(event.key in actions) || (event.key === "Escape" && selected === null)) return;
    event.preventDefault();
    actions[event.key]();
  });
  field.addEventListener("blur", () => tip.hidden || hovered || showTip([]));
  field.addEventListener(
    "wheel",
    (event) => {
      if (!picture) return;
      const [x] = point(event);
      const length = picture.view.to - picture.view.from;
      if (event.ctrlKey || event.metaKey) zoomBy(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 100))), picture.view.from + (x / picture.width) * length);
      else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) panBy(((event.deltaX || event.deltaY) / picture.width) * length);
      else return;
      event.preventDefault();
    },
    { passive: false },
  );
  const pointers = new Map();
  let dragged = false;
  field.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    pointers.set(event.pointerId, [event.clientX, event.clientX]);
    dragged = pointers.size > 1;
  });
  field.addEventListener("pointermove", (event) => {
    const pointer = pointers.get(event.pointerId);
    if (!pointer) return event.pointerType === "mouse" && hover(event);
    if (!dragged && Math.abs(event.clientX - pointer[0]) < DRAGGED_PIXELS) return;
    if (!dragged) {
      dragged = true;
      pointer[1] = pointer[0];
      field.setPointerCapture(event.pointerId);
      field.setAttribute("data-dragged", "");
      leave();
    }
    const length = picture.view.to - picture.view.from;
    if (pointers.size === 1) panBy(((pointer[1] - event.clientX) / picture.width) * length);
    else {
      const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, each]) => each[1]);
      const middle = (other + event.clientX) / 2 - field.getBoundingClientRect().left;
      zoomBy(Math.max(10, Math.abs(other - pointer[1])) / Math.max(10, Math.abs(other - event.clientX)), picture.view.from + (middle / picture.width) * length);
    }
    pointer[1] = event.clientX;
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    field.addEventListener(kind, (event) => {
      if (pointers.delete(event.pointerId) && !dragged && kind === "pointerup") openFound(event);
      if (!pointers.size) field.removeAttribute("data-dragged");
    });
  }
  field.addEventListener("pointerleave", () => pointers.size || leave());
  field.addEventListener("dblclick", () => (reset(), request()));
  new ResizeObserver(request).observe(field);

  // Messages

  let flowAt = 0;
  let asking = null;

  // Ask for all jobs again if a message is missing, as in a window that was opened after the others.
  function check() {
    if (asking !== null || dashboard.options.tab !== "timeline") return;
    asking = setTimeout(() => {
      asking = null;
      if (jobs.number < (dashboard.model.get("timeline").number ?? 0)) choose({ asked: uniqueId("timeline") });
    }, MISSING_MS);
  }

  function receive({ timeline }) {
    if (!timeline) return;
    if (!jobs.take(timeline)) return check();
    if (selected && !jobs.places.has(selected)) selected = null;
    request();
  }

  let timer = null;

  // Draw what moves on with the present. This ends while the element is in no page; the next update begins it again.
  function move() {
    if (!element.isConnected) {
      clearInterval(timer);
      timer = null;
    } else if (!fixed && running() && !document.hidden) request();
  }

  return {
    element,
    receive,
    show() {
      flowAt = Date.now();
      timer ??= setInterval(move, REDRAW_MS);
      if (jobs.number !== dashboard.model.get("timeline").number) check();
      request();
    },
    parts: ["timeline", "flow"],
  };
}

// Make an element with styles. The page outside notebooks forbids them as attributes.
function styled(styles, ...made) {
  const element = el(...made);
  Object.assign(element.style, styles);
  return element;
}

// Make a group of buttons of which one is pressed.
function choiceButtons(label, names, titleOf, onchoose) {
  const buttons = Object.fromEntries(Object.entries(names).map(([name, words]) => [name, button(words, titleOf(name), () => onchoose(name), { "aria-pressed": "false" })]));
  return {
    element: el("span", { class: "cmemu-row", role: "group", "aria-label": label }, label === "Window" ? null : el("span", { class: "cmemu-muted" }, label), Object.values(buttons)),
    show(chosen) {
      for (const [name, each] of Object.entries(buttons)) each.setAttribute("aria-pressed", String(name === chosen));
    },
  };
}

// Return a time of day in UTC, with as many digits as a step between two such times needs; both are in milliseconds.
function clockText(at, step) {
  const day = new Date(Math.floor(at)).toISOString();
  const time = day.slice(11, 19);
  if (step >= 86400000) return day.slice(0, 10);
  if (step >= 1000) return time;
  if (step >= 1) return `${time}.${day.slice(20, 23)}`;
  return `${time}.${day.slice(20, 23)}${String(Math.floor((at - Math.floor(at)) * 1000)).padStart(3, "0")}`;
}

function countStates(jobs, places) {
  const counts = JOB_STATES.map(() => 0);
  for (const place of places) counts[jobs.state[place]] += 1;
  return counts;
}

function countsText(counts) {
  const texts = counts.map((number, state) => (number ? `${number.toLocaleString("en")} ${JOB_STATES[state]}${state === FUNCTION_ERROR && number > 1 ? "s" : ""}` : ""));
  return texts.filter(Boolean).join(", ") || "no jobs";
}

// Return the places of the jobs that waited or ran between two times.
function placesIn(jobs, { from, to }, now) {
  const places = [];
  for (let place = 0; place < jobs.id.length; place += 1) {
    if (jobs.state[place] !== REMOVED && jobs.queued[place] <= to && Math.min(jobs.ended[place], now) >= from) places.push(place);
  }
  return places;
}

// Make the table that says in words what the picture shows.
function timelineTable(onopen) {
  const COLUMNS = ["Lane", "Jobs", "Busy", "Function errors", "Failed", "Longest run"];
  const rows = el("tbody");
  const details = el("details", {}, el("summary", { title: "Show or hide the numbers behind the picture" }, "As a table"), el("div", { class: "cmemu-scroll" }, el("table", { class: "cmemu-table" }, el("caption", { class: "cmemu-timeline-spoken" }, "The lanes of the timeline"), el("thead", {}, el("tr", {}, COLUMNS.map((name, index) => el("th", { scope: "col", class: index ? "cmemu-number" : null }, name)))), rows)));

  function show(jobs, places, view, now) {
    if (!details.open) return;
    const lanes = new Map();
    for (const place of places) {
      const key = jobs.lane[place] < 0 ? `queue of ${jobs.names.runtimes[jobs.runtime[place]]}` : jobs.names.lanes[jobs.lane[place]];
      const name = Array.isArray(key) ? `${jobs.names.runtimes[key[0]]} · ${key[3]}` : key;
      const lane = lanes.get(name) ?? { counts: JOB_STATES.map(() => 0), busy: 0, longest: 0 };
      lanes.set(name, lane);
      lane.counts[jobs.state[place]] += 1;
      if (jobs.lane[place] < 0) continue;
      const [left, right] = [jobs.left[place], Math.min(jobs.ended[place], now)];
      lane.busy += Math.max(0, Math.min(right, view.to) - Math.max(left, view.from));
      lane.longest = Math.max(lane.longest, right - left);
    }
    const cells = [...lanes].sort(([one], [other]) => one.localeCompare(other, "en", { numeric: true })).map(([name, { counts, busy, longest }]) => {
      const queue = name.startsWith("queue of ");
      return [name, counts.reduce((sum, each) => sum + each, 0), queue ? "" : `${Math.round((100 * busy) / (view.to - view.from))} %`, counts[FUNCTION_ERROR], counts[FAILED], queue ? "" : durationText(longest)];
    });
    rows.replaceChildren(...cells.map((each) => el("tr", {}, each.map((cell, index) => el("td", { class: index ? "cmemu-number" : null }, el("bdi", {}, typeof cell === "number" ? cell.toLocaleString("en") : cell))))));
  }

  details.addEventListener("toggle", onopen);
  return { element: details, show };
}
