// The page outside notebooks: it connects the dashboard's module with the emulator that serves the page.

import dashboard from "./dashboard.js";

const TOKEN = `cmemu-token:${location.pathname}`; // behind a hub, several emulators share an origin
const SILENT_MS = 20000; // the emulator sends an update at least every 5 seconds
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 8000;
const NO_TOKEN = 401;
const LOST = "The connection to the emulator is lost. The page connects again as soon as the emulator answers.";
// Instead of what the dashboard says in a notebook; the page has a notice of its own for a connection that is silent.
const WORDS = {
  ended: "The connection to the emulator is lost, so nothing was sent.",
  late: "The emulator has not answered yet.",
  silent: () => "",
  busy: "",
};

const [connection, form, refusal, field, place] = ["connection", "sign-in", "refusal", "token", "dashboard"].map((id) => document.getElementById(id));

// What the emulator refuses, with its words.
class Refused extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

// Remember the token for this tab, or forget it. Browsers give frames in pages of other sites nothing to remember it in.
function remember(token) {
  try {
    if (token) sessionStorage.setItem(TOKEN, token);
    else sessionStorage.removeItem(TOKEN);
  } catch {
    return;
  }
}

function remembered() {
  try {
    return sessionStorage.getItem(TOKEN);
  } catch {
    return null;
  }
}

// Take the token out of the address, where a person might copy it from, or else what this tab remembers.
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    remember(given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return given ?? remembered();
}

async function request(token, path, options = {}) {
  const answer = await fetch(new URL(path, import.meta.url), { ...options, cache: "no-store", credentials: "same-origin", redirect: "error", headers: { ...options.headers, Authorization: `Bearer ${token}` } });
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, body.error_description ?? `The emulator answers ${answer.status}.`);
}

// Give the events of an answer that does not end, each as a JavaScript value.
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const pieces = (text + value).split("\n\n");
    text = pieces.pop();
    for (const piece of pieces) yield JSON.parse(piece.slice("data: ".length));
  }
}

// The model that the dashboard is given, as anywidget would give it one: the parts, events about them, and messages.
class Model {
  constructor(token) {
    this.token = token;
    this.words = WORDS;
    this.parts = {};
    this.listeners = new Map();
    this.page = null; // its id while it is connected
    this.outbox = [];
    this.sending = false;
    this.looks = new Map(); // by window: what it has opened, for the next connection
  }

  get(name) {
    return this.parts[name] ?? {};
  }

  on(event, listener) {
    this.listeners.set(event, [...(this.listeners.get(event) ?? []), listener]);
  }

  off(event, listener) {
    this.listeners.set(event, (this.listeners.get(event) ?? []).filter((each) => each !== listener));
  }

  emit(event, value) {
    for (const listener of this.listeners.get(event) ?? []) listener(value);
  }

  send(message) {
    const { do: action, window, id } = message;
    if (action === "look") this.looks.set(window, { ...message, changes: { ...this.looks.get(window)?.changes, ...message.changes } });
    if (this.page) {
      this.outbox.push(message);
      this.deliver();
    } else if (id) this.emit("msg:custom", { answer: id, error: WORDS.ended });
  }

  // Send the messages one request after the other, so that they arrive in their order.
  async deliver() {
    if (this.sending) return;
    this.sending = true;
    try {
      while (this.page && this.outbox.length) {
        const messages = this.outbox.splice(0, 100);
        await request(this.token, "messages", { method: "POST", body: JSON.stringify({ page: this.page, messages }), headers: { "Content-Type": "application/json" } });
      }
    } catch (error) {
      for (const { id } of this.outbox.splice(0)) if (id) this.emit("msg:custom", { answer: id, error: error.message });
      this.reconnect();
    } finally {
      this.sending = false;
    }
  }

  take({ page, title, parts, answers }) {
    if (this.page !== page) this.connected(page, parts);
    document.title = title;
    Object.assign(this.parts, parts);
    for (const name of Object.keys(parts)) this.emit(`change:${name}`);
    for (const answer of answers) this.emit("msg:custom", answer);
  }

  // Begin with a new connection: the emulator knows nothing of what was open in the page.
  connected(page, parts) {
    if (this.page === null && Object.keys(this.parts).length) delete parts.options;
    this.page = page;
    this.outbox = [...this.looks.values()];
    this.deliver();
  }
}

// Follow the updates until the connection ends, however it ends; `onupdate` is called after each.
async function follow(model, onupdate) {
  const ended = new AbortController();
  model.reconnect = () => ended.abort();
  let heardAt = Date.now();
  const watch = setInterval(() => Date.now() - heardAt > SILENT_MS && ended.abort(), 1000);
  try {
    const answer = await request(model.token, "updates", { signal: ended.signal, headers: { Accept: "text/event-stream" } });
    for await (const update of events(answer)) {
      heardAt = Date.now();
      model.take(update);
      onupdate();
    }
  } finally {
    clearInterval(watch);
    ended.abort();
    model.page = null;
  }
}

// Return after a pause; the page that is shown again, or a network that is back, ends it.
function pause(milliseconds) {
  return new Promise((resolve) => {
    const timer = setTimeout(end, milliseconds);
    function end() {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", end);
      window.removeEventListener("online", end);
      resolve();
    }
    document.addEventListener("visibilitychange", end);
    window.addEventListener("online", end);
  });
}

function say(words) {
  connection.textContent = words;
  connection.hidden = !words;
  place.classList.toggle("cmemu-lost", Boolean(words));
}

// Show the dashboard for as long as the emulator accepts the token.
async function show(token) {
  const model = new Model(token);
  let [close, wait] = [null, FIRST_PAUSE_MS];
  for (;;) {
    try {
      await follow(model, () => {
        wait = FIRST_PAUSE_MS;
        say("");
        close ??= dashboard.render({ model, el: place });
      });
    } catch (error) {
      if (error.status === NO_TOKEN) {
        close?.();
        place.replaceChildren();
        return;
      }
      say(error.status ? error.message : LOST);
    }
    if (connection.hidden) say(LOST);
    document.title = "not connected · cmemu";
    await pause(wait);
    wait = Math.min(2 * wait, LONGEST_PAUSE_MS);
  }
}

// Ask for the token until one is given that can be sent.
function ask(words) {
  say("");
  document.title = "cmemu";
  refusal.textContent = words;
  form.hidden = false;
  field.value = "";
  field.focus();
  return new Promise((resolve) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      const token = field.value.trim();
      if (!/^[\x21-\x7e]+$/.test(token)) {
        refusal.textContent = "A token has only ASCII letters, digits and punctuation, and no blanks.";
        return;
      }
      form.hidden = true;
      field.value = "";
      remember(token);
      resolve(token);
    };
  });
}

window.addEventListener("hashchange", () => takeToken() && location.reload());
let token = takeToken() ?? (await ask(""));
for (;;) {
  await show(token);
  remember(null);
  token = await ask("The emulator does not accept this token. If it was started again, it may have another one.");
}
