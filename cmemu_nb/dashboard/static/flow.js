// The flow at the top: the jobs on their way through the lifecycle, with rates, errors of the last minutes and latencies.
// Every count is a button that filters the Jobs tab; the emulator's addresses are behind the info button.

const FLOW_STATES = {
  queued: { words: "queued", title: "wait for a slot", filter: { status: "queued" } },
  running: { words: "running", title: "run at this moment", filter: { status: "running" } },
  ok: { words: "ok", title: "returned a value", filter: { outcome: "ok" } },
  function_error: { words: "function error", short: "error", title: "ended because their function raised: succeeded on the wire, with an error as the result", filter: { outcome: "function error" } },
  failed: { words: "failed", title: "failed or were cancelled", filter: { outcome: "failed" } },
};
// Why no queued job is taken.
const FLOW_JAMS = {
  "no executor": "nothing has polled for them",
  "no poll": "their executor has stopped polling",
  starting: "their replicas are starting",
  ended: "their module has ended",
};
const KEYS = [
  ["/", "search"],
  ["?", "this panel"],
  ["Esc", "close"],
  ["Ctrl+Enter", "submit"],
  ["← → ↑ ↓ Home End", "tabs and rows"],
  ["j k", "next and previous job"],
];
const SPARK_HEIGHT = 32;
const ANNOUNCE_MS = 5000;

// Return a count in at most five characters: 9,999, 12.3k, 123k, 1.2M.
function compact(count) {
  if (count < 10_000) return count.toLocaleString("en");
  const [size, unit] = count < 999_500 ? [count / 1000, "k"] : [count / 1_000_000, "M"];
  return `${size < 99.95 ? size.toFixed(1) : Math.round(size)}${unit}`;
}

function flowPart(dashboard) {
  const stopped = el("p", { class: "cmemu-empty" });
  const nodes = Object.fromEntries(Object.entries(FLOW_STATES).map(([name, state]) => [name, flowState(dashboard, name, state)]));
  const application = flowNode("cmemu-flow-application", "application", "Applications submit jobs. Press to show all jobs.", () => filterJobs(dashboard, {}));
  application.number.append(el("span", { class: "cmemu-flow-window", "aria-hidden": "true" }));
  const arrows = {
    submitted: flowArrow("Jobs submitted, by the second or minute, in the last minute"),
    started: flowArrow("Jobs started, by the second or minute, in the last minute"),
    finished: flowArrow("Jobs ended, by the second or minute, in the last minute"),
  };
  const spark = flowSpark();
  const [queue, run] = [flowLatency(dashboard, "queue p50", "Queue time", "timeline"), flowLatency(dashboard, "run p50", "Run time", "functions")];
  const info = flowInfo(dashboard);
  const ends = el("div", { class: "cmemu-flow-ends" }, nodes.ok.element, nodes.function_error.element, nodes.failed.element);
  const line = el(
    "div",
    { class: "cmemu-flow", role: "group", "aria-label": "Lifecycle of the jobs" },
    [application.element, arrows.submitted.element, nodes.queued.element, arrows.started.element, nodes.running.element, arrows.finished.element, ends],
    el("div", { class: "cmemu-flow-figures" }, spark.element, queue.element, run.element),
    info.button,
  );
  const announcer = flowAnnouncement();

  function show() {
    const flow = dashboard.model.get("flow");
    line.hidden = !flow.running;
    stopped.hidden = flow.running || !flow.hint;
    setText(stopped, flow.hint || "");
    if (!flow.running) return info.close();
    const filter = dashboard.options.tab === "jobs" ? dashboard.options.filter : {};
    for (const [name, node] of Object.entries(nodes)) node.show(flow.counts[name], flow, filter);
    for (const [name, arrow] of Object.entries(arrows)) arrow.show(flow.rates[name]);
    spark.show(flow.history);
    queue.show(flow.queue);
    run.show(flow.run);
    info.show(flow.facts);
    announcer.show(flow.counts);
  }

  const element = el("section", { "aria-label": "Emulator" }, stopped, line, info.element, announcer.element);
  return { element, show, parts: ["flow"], close: info.close, toggle: info.toggle };
}

// Make one node of the flow: a button with a number and a word below it.
function flowNode(style, words, title, onclick) {
  const number = el("span", { class: "cmemu-flow-number" });
  const word = el("span", { class: "cmemu-flow-word" }, words);
  const element = el("button", { type: "button", class: `cmemu-flow-node ${style}`, title, onclick }, number, word);
  return { element, number, word };
}

function flowState(dashboard, name, { words, short, title, filter }) {
  const node = flowNode(`cmemu-flow-${name}`, "", "", () => filterJobs(dashboard, chosen ? {} : filter));
  node.word.append(el("span", { class: "cmemu-flow-long" }, words), short ? el("span", { class: "cmemu-flow-short" }, short) : "");
  const holder = el("bdi");
  const holding = el("span", { hidden: true }, el("span", { class: "cmemu-flow-holding" }, "held by "), holder);
  const jammed = el("span", { hidden: true });
  node.word.append(holding, jammed);
  let chosen = false;
  return {
    element: node.element,
    show(count, { slots, jam }, wanted) {
      const [key, value] = Object.entries(filter)[0];
      chosen = wanted[key] === value;
      const ofSlots = name === "running" && slots.number !== null ? `/${compact(slots.number)}` : "";
      const full = name === "running" && Boolean(slots.holder);
      setText(node.number, compact(count) + ofSlots);
      setText(holder, full ? slots.holder : "");
      holding.hidden = !full;
      const stuck = name === "queued" ? jam : "";
      setText(jammed, stuck);
      jammed.hidden = !stuck;
      const exact = `${count.toLocaleString("en")} jobs ${title}${ofSlots ? `, in ${slots.number.toLocaleString("en")} slots` : ""}.${full ? ` ${slots.why}` : ""}${stuck ? ` None is taken: ${FLOW_JAMS[stuck]}.` : ""}`;
      setAttribute(node.element, "title", `${exact} Press to show ${chosen ? "all jobs" : "them"}.`);
      setAttribute(node.element, "aria-label", `${flowCount(name, count)}${ofSlots ? ` in ${slots.number.toLocaleString("en")} slots` : ""}${full ? `, held by ${slots.holder}` : ""}${stuck ? `, ${stuck}` : ""}`);
      setAttribute(node.element, "aria-pressed", String(chosen));
      node.element.toggleAttribute("data-none", !count);
      node.element.toggleAttribute("data-full", full || Boolean(stuck));
    },
  };
}

// Return a count with its word: "1 function error", "1,200 ok".
function flowCount(name, count) {
  return `${count.toLocaleString("en")} ${FLOW_STATES[name].words}${name === "function_error" && count !== 1 ? "s" : ""}`;
}

// Show the jobs with a status or an outcome, and with nothing else asked of them.
function filterJobs(dashboard, filter) {
  const none = Object.fromEntries(Object.keys(dashboard.options.filter).map((name) => [name, ""]));
  // In a narrow dashboard an open job would hide them.
  dashboard.look({ tab: "jobs", job: "", filter: { ...none, ...filter } });
}

function flowArrow(title) {
  const rate = el("span", { class: "cmemu-flow-rate" });
  const element = el("span", { class: "cmemu-flow-arrow", title }, rate, el("span", { class: "cmemu-flow-line", "aria-hidden": "true" }));
  return { element, show: (text) => setText(rate, text) };
}

// Make a figure of times: a button that opens the tab in which one sees where they come from.
function flowLatency(dashboard, words, what, tab) {
  const time = el("span", { class: "cmemu-flow-number" });
  const element = el("button", { type: "button", class: "cmemu-flow-figure", onclick: () => dashboard.look({ tab }) }, time, el("span", { class: "cmemu-flow-word" }, words));
  return {
    element,
    show({ p50, p95 }) {
      setText(time, p50);
      setAttribute(element, "title", `${what} of the jobs that ended in the last minute: half of them no longer than ${p50}, 95 % no longer than ${p95}. Press to open the tab ${tab === "timeline" ? "Timeline" : "Functions"}.`);
    },
  };
}

// Make the sparkline: a bar for every two seconds of the last two minutes, with errors and failures on top.
function flowSpark() {
  const shape = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const title = shape("title", {});
  const paths = ["ok", "error", "failed"].map((kind) => shape("path", { class: `cmemu-spark-${kind}` }));
  const svg = shape("svg", { viewBox: `0 0 120 ${SPARK_HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  svg.append(title, ...paths);
  return {
    element: el("div", { class: "cmemu-spark" }, svg),
    show(history) {
      const top = Math.max(1, ...history.map((ends) => ends.reduce((sum, each) => sum + each)));
      const bars = [[], [], []];
      history.forEach((ends, position) => {
        let floor = SPARK_HEIGHT - 1;
        ends.forEach((count, kind) => {
          // What happened once must be seen beside a thousand others.
          const height = count && Math.max(1.5, ((SPARK_HEIGHT - 3) * count) / top);
          if (height) bars[kind].push(`M${2 * position} ${floor}v${-height}h1.5v${height}z`);
          floor -= height;
        });
      });
      paths.forEach((path, kind) => setAttribute(path, "d", bars[kind].join("")));
      const [ok, errors, failed] = [0, 1, 2].map((kind) => history.reduce((sum, ends) => sum + ends[kind], 0).toLocaleString("en"));
      setText(title, `Jobs that ended in the last 2 minutes, 2 seconds a bar: ${ok} ok, ${errors} function error, ${failed} failed. The highest bar has ${top.toLocaleString("en")}.`);
    },
  };
}

// Make the announcement for screen readers: what is under way and what went wrong, at intervals and only if it has changed.
function flowAnnouncement() {
  const element = el("p", { class: "cmemu-heard", role: "status", "aria-live": "polite" });
  let [words, at, timer] = ["", 0, null];
  function say() {
    timer = null;
    at = Date.now();
    setText(element, words);
  }
  return {
    element,
    show(counts) {
      const under = ["queued", "running"].filter((name) => counts[name]).map((name) => flowCount(name, counts[name]));
      const wrong = ["function_error", "failed"].filter((name) => counts[name]).map((name) => flowCount(name, counts[name]));
      words = [...(under.length ? under : ["No job is running"]), ...wrong].join(", ");
      if (words !== element.textContent && timer === null) timer = setTimeout(say, Math.max(0, at + ANNOUNCE_MS - Date.now()));
    },
  };
}

// Make the button and the panel of the emulator's addresses, its token, home and uptime.
function flowInfo(dashboard) {
  const id = uniqueId("info");
  const facts = {};
  const list = el("dl", { class: "cmemu-facts" });
  for (const [name, words, title, copied] of [
    ["url", "URL", "Emulator and contour routes, plain HTTP", true],
    ["proxy_url", "Behind the hub", "The same from your browser, behind the hub's host and with a token", true],
    ["tls_url", "TLS URL", "Platform routes, which the official SDKs use", true],
    ["ui_url", "Page", "This dashboard in any browser; the page asks for the token", true],
    ["token", "Token", "Bearer token of the contour routes"],
    ["home", "Runs", "Where the emulator's event loop runs"],
    ["uptime", "Up for", "Since the emulator was started"],
    ["evicted", "Evicted", "Finished jobs that are not kept any more"],
  ]) {
    const value = el("bdi", { class: `cmemu-fact-${name}` });
    facts[name] = value;
    list.append(el("dt", { title }, words), el("dd", {}, value, copied && [" ", copyButton(dashboard, words, () => value.textContent)]));
  }
  const reveal = button("Show", "Show the whole token here until it is hidden again", showToken, { "aria-pressed": "false" });
  const copy = button("Copy", "Copy the token", async () => {
    const whole = await dashboard.ask("token");
    if (whole) dashboard.say((await copyText(whole)) ? "The token was copied." : "The browser does not let pages copy. Press Show.");
  });
  facts.token.after(" ", reveal, " ", copy);
  const keys = KEYS.map(([key, does]) => [el("kbd", {}, key), ` ${does} `]);
  list.append(el("dt", { title: "Keys that work in the whole dashboard" }, "Keys"), el("dd", { class: "cmemu-info-keys" }, keys));
  const element = el("div", { class: "cmemu-info", id, role: "region", "aria-label": "Addresses and token", hidden: true }, list);
  const opener = button("i", "Show or hide the emulator's addresses, token, home and uptime", toggle, { "class": "cmemu-flow-info", "aria-label": "Addresses and token", "aria-expanded": "false", "aria-controls": id });
  let token = "";
  let latest = {};

  async function showToken() {
    token = token ? "" : (await dashboard.ask("token")) || "";
    show(latest);
  }

  function toggle() {
    if (!element.hidden) return close();
    element.hidden = false;
    opener.setAttribute("aria-expanded", "true");
    return true;
  }

  // Close the panel and hide the token; returns whether it was open.
  function close() {
    const wasOpen = !element.hidden;
    if (wasOpen && element.contains(document.activeElement)) opener.focus();
    element.hidden = true;
    opener.setAttribute("aria-expanded", "false");
    token = "";
    show(latest);
    return wasOpen;
  }

  function show(now) {
    latest = now;
    for (const [name, value] of Object.entries(facts)) {
      setText(value, (name === "token" && token) || now[name] || "");
      const absent = !now[name];
      value.parentElement.hidden = value.parentElement.previousElementSibling.hidden = absent;
    }
    setText(reveal, token ? "Hide" : "Show");
    reveal.setAttribute("aria-pressed", String(Boolean(token)));
  }

  return { button: opener, element, show, close, toggle };
}

function copyButton(dashboard, words, text) {
  return button("Copy", `Copy the ${words}`, async () => dashboard.say((await copyText(text())) ? `${words} was copied.` : "The browser does not let pages copy. Select the text."), { "aria-label": `Copy the ${words}` });
}
