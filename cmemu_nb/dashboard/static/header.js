// The header: the emulator's addresses, counts of jobs and figures of the last minute.

function headerPart(dashboard) {
  const facts = {};
  const list = el("dl", { class: "cmemu-facts" });
  for (const [name, words, title] of [
    ["url", "URL", "Emulator and contour routes, plain HTTP"],
    ["proxy_url", "Behind the hub", "The same from your browser, behind the hub's host and with a token"],
    ["tls_url", "TLS URL", "Platform routes, which the official SDKs use"],
    ["token", "Token", "Bearer token of the contour routes"],
    ["home", "Runs", "Where the emulator's event loop runs"],
    ["uptime", "Up for", "Since the emulator was started"],
    ["throughput", "Done, last minute", "Jobs that ended in the last minute"],
    ["queue", "Queue time, last minute", "How long the jobs that ended in the last minute were queued: half of them no longer than p50, 95 % no longer than p95"],
    ["run", "Run time, last minute", "How long the jobs that ended in the last minute ran: half of them no longer than p50, 95 % no longer than p95"],
  ]) {
    facts[name] = el("dd", {}, el("bdi", { class: `cmemu-fact-${name}` }));
    list.append(el("div", { title }, el("dt", {}, words), facts[name]));
  }
  const reveal = button("Show", "Show the whole token here until it is hidden again", showToken, { "aria-pressed": "false" });
  const copy = button("Copy", "Copy the token", async () => {
    const token = await dashboard.ask("token");
    if (token) dashboard.say((await copyText(token)) ? "The token was copied." : "The browser does not let pages copy. Press Show.");
  });
  facts.token.append(" ", reveal, " ", copy);
  const counts = el("p", { class: "cmemu-counts", "aria-label": "Jobs by state" });
  const spark = el("div", { class: "cmemu-spark", title: "Jobs done in each second of the last minute" });
  const stopped = el("p", { class: "cmemu-empty" });
  let token = "";

  async function showToken() {
    token = token ? "" : (await dashboard.ask("token")) || "";
    show();
  }

  function show() {
    const header = dashboard.model.get("header");
    list.hidden = counts.hidden = spark.hidden = !header.running;
    stopped.hidden = header.running || !header.hint;
    setText(stopped, header.hint || "");
    if (!header.running) {
      token = "";
      return;
    }
    for (const [name, element] of Object.entries(facts)) setText(element.firstElementChild, header[name]);
    facts.proxy_url.parentElement.hidden = !header.proxy_url;
    setText(facts.token.firstElementChild, token || header.token);
    setText(reveal, token ? "Hide" : "Show");
    reveal.setAttribute("aria-pressed", String(Boolean(token)));
    counts.replaceChildren(...header.jobs.map((each) => badge(each)));
    drawn(spark, header.spark);
  }

  const element = el("section", { "aria-label": "Emulator" }, stopped, list, el("div", { class: "cmemu-row" }, counts, spark));
  return { element, show, parts: ["header"] };
}

// Show a chart that Python has drawn and escaped.
function drawn(element, svg) {
  if (element.dataset.svg === svg) return;
  element.dataset.svg = svg;
  element.replaceChildren(document.importNode(new DOMParser().parseFromString(svg, "image/svg+xml").documentElement, true));
}
