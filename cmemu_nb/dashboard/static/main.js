// The whole dashboard: the flow, the tabs, and the messages to and from the kernel.

const TABS = { jobs: "Jobs", functions: "Functions", runtimes: "Runtimes", data: "Data", timeline: "Timeline", events: "Events" };
const PARTS = { jobs: jobsPart, functions: functionsPart, runtimes: runtimesPart, data: dataPart, timeline: timelinePart, events: eventsPart };
const STAY_MS = 20000;
const ANSWER_MS = 30000;
const MESSAGE_MS = 10000;
const SILENT_MS = 6000;
const DEAF_MS = 1500;
const SKEW_MS = 3000;
const TICK_MS = 1000;
// What is said of the connection in a notebook. The page outside notebooks has its own words, and its own notice.
const KERNEL = {
  ended: "The kernel was restarted or has ended: run this cell again.",
  late: "The kernel has not answered yet: a long cell may be running, and the answer comes after it.",
  silent: (at) => `No news from the kernel since ${at} UTC. If it was restarted, run this cell again.`,
  busy: "A cell keeps the kernel busy. What you chose is shown when the cell ends.",
};

// Everything that the parts use: the model, the options, requests to the kernel, and a place to show messages.
function connect(model, status) {
  const window = uniqueId("window");
  const waiting = new Map();
  const words = model.words ?? KERNEL;
  const dashboard = { model, words, options: model.get("options"), window };
  let pending = {};
  let requested = { number: 0, at: 0 };

  // Send a message; returns false if that is impossible because the kernel was restarted, which closes the connection.
  dashboard.send = (message) => {
    try {
      model.send({ window, ...message });
      return true;
    } catch {
      return false;
    }
  };

  // The time of the kernel's clock in milliseconds since 1970. A small difference is only the way of a message.
  dashboard.now = () => Date.now() + (Math.abs(dashboard.skew) > SKEW_MS ? dashboard.skew : 0);
  dashboard.skew = 0;

  // The variable that holds the emulator, for hints of what to type.
  dashboard.emu = () => model.get("name");

  // Change the options: the tab, a filter, what is open.
  dashboard.look = (changes) => {
    pending = { ...pending, ...changes };
    requested = { number: requested.number + 1, at: Date.now() };
    dashboard.options = { ...dashboard.options, ...changes };
    dashboard.show();
    if (!dashboard.send({ do: "look", changes, number: requested.number })) dashboard.warn(words.ended);
  };

  // Adopt the kernel's options, which this window or another has changed; the pending changes of this window stay.
  dashboard.follow = () => {
    const options = model.get("options");
    if (received()) pending = {};
    dashboard.options = { ...options, ...pending };
    dashboard.show();
  };

  const received = () => (model.get("options").seen?.[window] ?? 0) >= requested.number;

  // Return whether a cell keeps the kernel from receiving what was chosen, and this is not shown yet: where messages wait for
  // cells, the kernel sends the data of every tab, and the newest jobs, while a cell runs.
  dashboard.isBusy = () => {
    const here = model.get("newest")?.rows ? ["tab", "filter", "job", "most"] : [];
    return !received() && Date.now() - requested.at > DEAF_MS && Object.keys(pending).some((name) => !here.includes(name));
  };

  // Show a sentence for a while: what a button did.
  let fading = null;
  dashboard.say = (message) => {
    dashboard.warn(message);
    fading = setTimeout(() => setText(status, ""), MESSAGE_MS);
  };

  // Show a sentence until another button is pressed: what went wrong.
  dashboard.warn = (message) => {
    clearTimeout(fading);
    setText(status, message);
  };

  // Run a button's action in the kernel; returns its answer, or shows the error and returns null.
  dashboard.ask = (action, fields = {}, onwrong = dashboard.warn) => {
    const id = uniqueId("question");
    onwrong("");
    return new Promise((resolve) => {
      const timer = setTimeout(() => onwrong(words.late), ANSWER_MS);
      waiting.set(id, ({ value, error }) => {
        clearTimeout(timer);
        onwrong(error || "");
        resolve(error ? null : value);
      });
      if (!dashboard.send({ do: action, id, ...fields })) dashboard.receive({ answer: id, error: words.ended });
    });
  };

  dashboard.receive = (message) => {
    const answer = waiting.get(message.answer);
    if (!answer) return;
    waiting.delete(message.answer);
    answer(message);
  };
  return dashboard;
}

// Make the row of tabs with its panels; the arrow keys select the next one.
function tabs(dashboard, parts) {
  const names = Object.keys(TABS);
  const panels = {};
  const buttons = {};
  for (const name of names) {
    const [tab, panel] = [uniqueId("tab"), uniqueId("panel")];
    buttons[name] = el("button", { type: "button", role: "tab", id: tab, "aria-controls": panel, class: "cmemu-tab", title: `Show ${TABS[name].toLowerCase()}`, onclick: () => dashboard.look({ tab: name }) }, TABS[name]);
    panels[name] = el("div", { role: "tabpanel", id: panel, "aria-labelledby": tab }, parts[name].element);
  }
  const list = el("div", { role: "tablist", "aria-label": "What to show", class: "cmemu-tabs" }, Object.values(buttons));
  const update = roving(list, "[role=tab]", { keys: ["ArrowLeft", "ArrowRight"], onmove: (tab) => tab.click() });
  function show() {
    for (const name of names) {
      const open = name === dashboard.options.tab;
      buttons[name].setAttribute("aria-selected", String(open));
      panels[name].hidden = !open;
    }
    mark();
    update(buttons[dashboard.options.tab]);
  }
  // A dot at Runtimes says on every tab that one of them needs attention, such as a module that has crashed.
  function mark() {
    const { data, attention } = dashboard.model.get("flow");
    const { tone, words } = attention ?? {};
    // Most emulators have no data, so that tab is there only with the first dataset or stream.
    const none = !data && dashboard.options.tab !== "data";
    if (buttons.data.hidden !== none) {
      buttons.data.hidden = none;
      update();
    }
    buttons.runtimes.dataset.tone = tone || "";
    setAttribute(buttons.runtimes, "title", `Show runtimes${words ? `; ${words}` : ""}`);
    setAttribute(buttons.runtimes, "aria-description", words || "");
  }
  return { element: el("div", {}, list, Object.values(panels)), show, mark };
}

// Make the notice that is shown while the kernel sends nothing, or does not receive.
function noticePart(dashboard) {
  const element = el("p", { class: "cmemu-said", role: "status" });
  let heardAt = Date.now();
  function show() {
    const { running, at } = dashboard.model.get("flow");
    if (running && Date.now() - heardAt > SILENT_MS) setText(element, dashboard.words.silent(at));
    else setText(element, dashboard.isBusy() ? dashboard.words.busy : "");
  }
  return {
    element,
    parts: ["flow"],
    show() {
      heardAt = Date.now();
      show();
    },
    look: show,
  };
}

// Make the notice of an error in the dashboard itself.
function troublePart(dashboard) {
  const words = el("span");
  const details = el("pre", { class: "cmemu-body" });
  let shown = 0;
  const element = el("div", { class: "cmemu-trouble", role: "alert", hidden: true }, el("strong", {}, "The dashboard has a fault: "), words, " ", button("Dismiss", "Hide this", () => (element.hidden = true)), el("details", {}, el("summary", { title: "Show or hide the traceback" }, "Details"), details));
  return {
    element,
    parts: ["trouble"],
    show() {
      const trouble = dashboard.model.get("trouble");
      if (!trouble.words || trouble.number === shown) return;
      shown = trouble.number;
      element.hidden = false;
      setText(words, trouble.words);
      setText(details, trouble.details);
    },
  };
}

// Close what is open in the tab that is shown.
function closeOpen(dashboard) {
  const { tab, job, edit, compare, tried, function: opened, resource } = dashboard.options;
  if (tab === "jobs" && job && edit === job) dashboard.look({ edit: "" });
  else if (tab === "jobs" && job && compare?.[0] === job) dashboard.look({ compare: [] });
  else if (tab === "jobs" && job) dashboard.look({ job: "" });
  else if (tab === "functions" && tried) dashboard.look({ tried: "" });
  else if (tab === "functions" && opened) dashboard.look({ function: "" });
  else if (tab === "data" && resource?.length) dashboard.look({ resource: [] });
}

function render({ model, el: place }) {
  const status = el("p", { class: "cmemu-said", role: "status", "aria-live": "polite" });
  const dashboard = connect(model, status);
  const flow = flowPart(dashboard);
  const [notice, trouble, summary] = [noticePart(dashboard), troublePart(dashboard), summaryPart(dashboard)];
  const parts = Object.fromEntries(Object.entries(PARTS).map(([name, make]) => [name, make(dashboard)]));
  const tabRow = tabs(dashboard, parts);
  // Focusable, so that a click beside the controls gives the focus to it and not to the cell, which would get the next keys.
  const root = el("div", { class: "cmemu-dashboard", tabindex: "-1" }, summary.element, trouble.element, notice.element, flow.element, status, tabRow.element);
  keepKeys(root);
  keepFocus(root);
  dashboardKeys(root, () => flow.close() || closeOpen(dashboard), flow.toggle);
  place.append(root);

  dashboard.show = () => {
    flow.show();
    tabRow.show();
    parts[dashboard.options.tab].show();
  };
  const listeners = [];
  const on = (event, listener) => {
    model.on(event, listener);
    listeners.push([event, listener]);
  };
  for (const [name, part] of Object.entries({ flow, notice, trouble, summary, ...parts })) {
    for (const each of part.parts) on(`change:${each}`, () => (name in parts && name !== dashboard.options.tab ? null : part.show()));
  }
  on("change:options", dashboard.follow);
  on("change:flow", tabRow.mark);
  on("change:flow", () => (dashboard.skew = model.get("flow").now * 1000 - Date.now()));
  on("msg:custom", dashboard.receive);
  on("msg:custom", parts.timeline.receive);
  dashboard.send({ do: "stay" });
  const look = () => [notice, summary].forEach((each) => each.look());
  const tick = () => parts[dashboard.options.tab].tick?.();
  const timers = [setInterval(() => dashboard.send({ do: "stay" }), STAY_MS), setInterval(look, 500), setInterval(tick, TICK_MS)];
  dashboard.show();
  return () => {
    timers.forEach(clearInterval);
    for (const [event, listener] of listeners) model.off(event, listener);
    dashboard.send({ do: "close" });
    dashboard.send = () => false;
  };
}

export default { render };
