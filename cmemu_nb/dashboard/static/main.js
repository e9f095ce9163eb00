// The whole dashboard: the header, the tabs, and the talk with the kernel.

const TABS = { jobs: "Jobs", functions: "Functions", runtimes: "Runtimes", timeline: "Timeline", events: "Events" };
const PARTS = { jobs: jobsPart, functions: functionsPart, runtimes: runtimesPart, timeline: chartsPart, events: eventsPart };
const STAY_MS = 20000;
const ANSWER_MS = 30000;
const SAID_MS = 10000;
const SILENT_MS = 6000;
const DEAF_MS = 1500;
const PAGE_KEYS = new Set(["s", "f", "g", "p", "c"]); // with Ctrl or Cmd: save, find, print, and with Shift the palette
const GONE = "The kernel is gone: run this cell again.";

// Everything a part needs: the model, the options, questions to the kernel, and a place to say something.
function connect(model, said) {
  const window = uniqueId("window");
  const waiting = new Map();
  const dashboard = { model, options: model.get("options"), window };
  let wishes = {};
  let wished = { number: 0, at: 0 };

  // Send a message; the connection is closed when the kernel was restarted, and nothing can be sent then.
  dashboard.send = (message) => {
    try {
      model.send({ window, ...message });
      return true;
    } catch {
      return false;
    }
  };

  // The variable that holds the emulator, for hints of what to type.
  dashboard.emu = () => model.get("name");

  // Change what is looked at.
  dashboard.look = (changes) => {
    wishes = { ...wishes, ...changes };
    wished = { number: wished.number + 1, at: Date.now() };
    dashboard.options = { ...dashboard.options, ...changes };
    dashboard.show();
    if (!dashboard.send({ do: "look", changes, number: wished.number })) dashboard.warn(GONE);
  };

  // Take over what the kernel says is looked at, by this window or another; wishes on the way come on top.
  dashboard.follow = () => {
    const options = model.get("options");
    if (heard()) wishes = {};
    dashboard.options = { ...options, ...wishes };
    dashboard.show();
  };

  const heard = () => (model.get("options").seen?.[window] ?? 0) >= wished.number;

  // Say for how many milliseconds a wish has been waiting.
  dashboard.waited = () => (heard() ? 0 : Date.now() - wished.at);

  // Show a sentence for a while: what a button did.
  let fading = null;
  dashboard.say = (words) => {
    dashboard.warn(words);
    fading = setTimeout(() => setText(said, ""), SAID_MS);
  };

  // Show a sentence until another button is pressed: what went wrong.
  dashboard.warn = (words) => {
    clearTimeout(fading);
    setText(said, words);
  };

  // Press a button in the kernel; gives its answer, or null when that is an error, which is shown.
  dashboard.ask = (what, fields = {}, onwrong = dashboard.warn) => {
    const id = uniqueId("question");
    onwrong("");
    return new Promise((resolve) => {
      const timer = setTimeout(() => onwrong("The kernel has not answered yet: a long cell of it may be running, and the answer comes after that."), ANSWER_MS);
      waiting.set(id, ({ value, error }) => {
        clearTimeout(timer);
        onwrong(error || "");
        resolve(error ? null : value);
      });
      if (!dashboard.send({ do: what, id, ...fields })) dashboard.hear({ answer: id, error: GONE });
    });
  };

  dashboard.hear = (message) => {
    const answer = waiting.get(message.answer);
    if (!answer) return;
    waiting.delete(message.answer);
    answer(message);
  };
  return dashboard;
}

// Make the row of tabs with its panels; the arrow keys go from one to the next.
function tabs(dashboard, parts) {
  const names = Object.keys(TABS);
  const panels = {};
  const buttons = {};
  for (const name of names) {
    const [tab, panel] = [uniqueId("tab"), uniqueId("panel")];
    buttons[name] = el("button", { type: "button", role: "tab", id: tab, "aria-controls": panel, class: "cmemu-tab", title: `Show ${TABS[name].toLowerCase()}`, onclick: () => dashboard.look({ tab: name }) }, TABS[name]);
    panels[name] = el("div", { role: "tabpanel", id: panel, "aria-labelledby": tab }, parts[name].element);
  }
  const list = el("div", { role: "tablist", "aria-label": "What to look at", class: "cmemu-tabs" }, Object.values(buttons));
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = names[(names.indexOf(dashboard.options.tab) + step + names.length) % names.length];
    dashboard.look({ tab: next });
    buttons[next].focus();
  });
  function show() {
    for (const name of names) {
      const open = name === dashboard.options.tab;
      buttons[name].setAttribute("aria-selected", String(open));
      buttons[name].tabIndex = open ? 0 : -1;
      panels[name].hidden = !open;
    }
  }
  return { element: el("div", {}, list, Object.values(panels)), show };
}

// Make the notice that is there while the kernel is silent, or does not hear.
function noticePart(dashboard) {
  const element = el("p", { class: "cmemu-said", role: "status" });
  let heardAt = Date.now();
  function show() {
    const { running, at } = dashboard.model.get("header");
    if (running && Date.now() - heardAt > SILENT_MS) setText(element, `No news from the kernel since ${at} UTC. If it was restarted, run this cell again.`);
    else setText(element, dashboard.waited() > DEAF_MS ? "A cell keeps the kernel busy. What you chose is shown when that ends." : "");
  }
  return {
    element,
    parts: ["header"],
    show() {
      heardAt = Date.now();
      show();
    },
    look: show,
  };
}

// Make the notice of a fault in the dashboard itself.
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

// Keep the keys that are typed in the dashboard from the notebook around it: JupyterLab and Notebook 7 take those of their
// command mode (r, d d, x, Enter, arrows) from everything in an output that has the focus and is no text input, and undo from
// text inputs too. They look for the attribute from the element that has the focus upwards, and stop at the first that a
// shortcut is meant for, which is mostly that element itself (https://github.com/jupyterlab/jupyterlab/pull/15774).
function keepKeys(root) {
  root.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true"));
  // What is for the whole page is pressed once more outside.
  root.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || !PAGE_KEYS.has(event.key.toLowerCase())) return;
    if (!root.parentElement.dispatchEvent(new KeyboardEvent(event.type, event))) event.preventDefault();
  });
}

function render({ model, el: place }) {
  const said = el("p", { class: "cmemu-said", role: "status", "aria-live": "polite" });
  const dashboard = connect(model, said);
  const header = headerPart(dashboard);
  const [notice, trouble] = [noticePart(dashboard), troublePart(dashboard)];
  const parts = Object.fromEntries(Object.entries(PARTS).map(([name, make]) => [name, make(dashboard)]));
  const tabRow = tabs(dashboard, parts);
  // Focusable, so that a click beside the controls gives the focus to it and not to the cell, which would get the next keys.
  const root = el("div", { class: "cmemu-dashboard", tabindex: "-1" }, trouble.element, notice.element, header.element, said, tabRow.element);
  keepKeys(root);
  place.append(root);

  dashboard.show = () => {
    tabRow.show();
    parts[dashboard.options.tab].show();
  };
  const listeners = [];
  const on = (event, listener) => {
    model.on(event, listener);
    listeners.push([event, listener]);
  };
  for (const [name, part] of Object.entries({ header, notice, trouble, ...parts })) {
    for (const each of part.parts) on(`change:${each}`, () => (name in parts && name !== dashboard.options.tab ? null : part.show()));
  }
  on("change:options", dashboard.follow);
  on("msg:custom", dashboard.hear);
  dashboard.send({ do: "stay" });
  const timers = [setInterval(() => dashboard.send({ do: "stay" }), STAY_MS), setInterval(notice.look, 500)];
  header.show();
  dashboard.show();
  return () => {
    timers.forEach(clearInterval);
    for (const [event, listener] of listeners) model.off(event, listener);
    dashboard.send({ do: "close" });
    dashboard.send = () => false;
  };
}

export default { render };
