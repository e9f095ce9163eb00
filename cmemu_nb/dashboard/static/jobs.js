// The Jobs tab: the list of jobs, and beside it the open job; in a narrow dashboard the open job replaces the list.

function jobsPart(dashboard) {
  const list = jobTable(dashboard);
  const detail = jobCard(dashboard, { part: "job", title: "The open job", list, onclose: () => dashboard.look({ job: "" }) });
  const element = el("div", { class: "cmemu-master", onkeydown: press }, el("div", { class: "cmemu-split" }, list.element, detail.element));
  list.element.classList.add("cmemu-list-pane");
  let open = "";

  function show() {
    const { job } = dashboard.options;
    const opener = list.element.querySelector(":scope [data-open] .cmemu-open");
    const inside = detail.element.contains(document.activeElement);
    element.toggleAttribute("data-open", Boolean(job));
    list.show();
    detail.show();
    // Where the job has replaced the list, the focus would be lost with the list, and later with the job.
    if (job && !open && !list.element.offsetParent) detail.heading.focus();
    else if (!job && inside) opener?.focus();
    open = job;
  }

  function press(event) {
    const typing = event.target.closest("input, select, textarea");
    const letters = typing || event.ctrlKey || event.metaKey ? {} : { j: 1, k: -1 };
    const by = event.altKey ? { ArrowDown: 1, ArrowUp: -1 }[event.key] : letters[event.key];
    const id = by && dashboard.options.job && list.step(by);
    if (!id) return;
    event.preventDefault();
    dashboard.look({ job: id });
  }

  return { element, show, tick: list.tick, parts: ["jobs", "newest", "choices", "job", "edit", "compared"] };
}
