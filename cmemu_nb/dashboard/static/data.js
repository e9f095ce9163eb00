// The Data tab: the datasets and the streams, and beside them the one that is open; in a narrow dashboard it replaces the lists.

function dataPart(dashboard) {
  const datasets = lineTable({
    caption: "Datasets, oldest first",
    columns: [
      { name: "Dataset", share: 6, opens: true },
      { name: "Rows", width: 92, number: true, title: "The rows of its Parquet files on the branch master" },
      { name: "Size", width: 84, number: true, from: 400 },
      { name: "Files", width: 56, number: true, from: 620 },
      { name: "Branches", share: 4, from: 760 },
      { name: "Committed", width: 92, number: true, from: 440, title: "How long ago the last transaction was committed", fill: (cell, row) => fillSince(dashboard, cell, row.committed_at), live: true },
      { name: "Open transaction", share: 5, when: () => anyOpen, title: "Nobody sees its files until it is committed", fill: fillOpen },
    ],
    cellsOf: (row) => [row.name, row.rows, row.size, row.files, row.branches, null, null],
    onopen: (key) => open(datasets.rows().find((row) => row.key === key)),
    empty: "",
  });
  const streams = lineTable({
    caption: "Streams, oldest first",
    columns: [
      { name: "Stream", share: 6, opens: true },
      { name: "Records", width: 92, number: true, title: "The records that are kept" },
      { name: "Size", width: 84, number: true, from: 400 },
      { name: "Partitions", width: 84, number: true, from: 620 },
      { name: "Newest record", width: 116, number: true, from: 320, title: "How long ago the last record was published", fill: (cell, row) => fillSince(dashboard, cell, row.published_at), live: true },
    ],
    cellsOf: (row) => [row.name, row.records, row.size, row.partitions, null],
    onopen: (key) => open(streams.rows().find((row) => row.key === key)),
    empty: "",
  });
  const nothing = el("p", { class: "cmemu-empty" });
  const more = el("p", { class: "cmemu-note" });
  const list = el("div", { class: "cmemu-list-pane cmemu-data" }, datasets.element, streams.element, nothing, more);
  const detail = resourceCard(dashboard, close);
  const element = el("div", { class: "cmemu-master" }, el("div", { class: "cmemu-split" }, list, detail.element));
  let anyOpen = false;
  let before = "";

  function open(row) {
    const [rid, branch] = [row.rid ?? row.key, row.branch];
    const wanted = dashboard.options.resource ?? [];
    const same = wanted[0] === rid && (!row.rid || wanted[1] === branch);
    dashboard.look({ resource: same ? [] : [rid, branch] });
  }

  function close() {
    dashboard.look({ resource: [] });
  }

  function show() {
    const data = dashboard.model.get("data");
    const [rid = "", branch = ""] = dashboard.options.resource ?? [];
    const opener = list.querySelector(":scope [data-open] .cmemu-open");
    const inside = detail.element.contains(document.activeElement);
    element.toggleAttribute("data-open", Boolean(rid));
    if (data.datasets) {
      const [sets, logs] = [data.datasets, data.streams];
      anyOpen = sets.some((row) => row.open);
      datasets.update(sets, rid);
      streams.update(logs, `${rid} ${branch}`);
      datasets.element.hidden = !sets.length;
      streams.element.hidden = !logs.length;
      nothing.hidden = Boolean(sets.length || logs.length);
      setText(nothing, `There are no datasets and no streams. A cell makes them with ${dashboard.emu()}.datasets["in"] = frame and ${dashboard.emu()}.streams["events"] = frame.`);
      setText(more, [moreText(dashboard, "dataset", sets, data.every_dataset), moreText(dashboard, "stream", logs, data.every_stream)].filter(Boolean).join(" "));
    }
    detail.show();
    // Where the card has replaced the lists, the focus would be lost with them, and later with the card.
    if (rid && !before && !list.offsetParent) detail.heading.focus();
    else if (!rid && inside) opener?.focus();
    before = rid;
  }

  function tick() {
    datasets.tick();
    streams.tick();
    detail.tick();
  }

  return { element, show, tick, parts: ["data", "resource"] };
}

function moreText(dashboard, kind, rows, every) {
  return every > rows.length ? `The newest ${rows.length} of ${every.toLocaleString("en")} ${kind}s: %cmemu ${kind}s has all.` : "";
}

function fillSince(dashboard, cell, at) {
  setText(cell, at === null ? "never" : agoText(Math.max(0, dashboard.now() - at * 1000)));
}

function fillOpen(cell, row) {
  setText(cell, row.open);
  cell.title = row.open;
  cell.classList.toggle("cmemu-attention", Boolean(row.open));
  cell.classList.toggle("cmemu-amber", Boolean(row.open));
}
