// The form that submits the query of a job again, after changes.

// Make the form of the open job. `show()` makes it anew for another job; what is typed stays while the data changes.
function editPart(dashboard) {
  const place = el("div");
  const check = el("input", { type: "checkbox", checked: true, title: "Compare the query with the schema before it is sent" });
  const checked = el("label", { class: "cmemu-label" }, check, " check against the schema");
  const wrong = el("p", { class: "cmemu-wrong", role: "alert" });
  const run = el("button", { type: "submit", class: "cmemu-button cmemu-main", title: "Submit this query, and open the new job (Ctrl+Enter)" }, "Run");
  const discard = button("Discard", "Close this form", close);
  const form = el("form", { onsubmit: submit, novalidate: true }, place, el("div", { class: "cmemu-row" }, run, discard, checked), wrong);
  const element = el("section", { class: "cmemu-edit", "aria-label": "Edit and run", hidden: true }, form);
  let made = { job: "", form: null };

  function close() {
    dashboard.look({ edit: "" });
  }

  async function submit(event) {
    event.preventDefault();
    setText(wrong, "");
    const query = made.form.read();
    if (query === null) return;
    const id = await dashboard.ask("run_again", { job: made.job, query, validate: check.checked && !checked.hidden }, (words) => setText(wrong, words));
    if (id) dashboard.look({ job: id, edit: "" });
  }

  function make({ key, schema, query }) {
    made = { job: key, form: queryForm(schema) };
    made.form.fill(query);
    place.replaceChildren(made.form.element);
    setText(wrong, "");
    element.scrollIntoView({ block: "nearest" });
    place.querySelector("input, textarea")?.focus();
  }

  const opener = button("Edit and run", "Change the query, and submit it as a new job", () => dashboard.look({ edit: dashboard.options.edit === dashboard.options.job ? "" : dashboard.options.job }));
  return {
    element,
    opener,
    show() {
      const part = dashboard.model.get("edit");
      const open = Boolean(part.key) && part.key === dashboard.options.job && dashboard.options.edit === part.key;
      if (!open && element.contains(document.activeElement)) opener.focus();
      element.hidden = !open;
      if (!open) made = { job: "", form: null };
      else if (made.job !== part.key) make(part);
      checked.hidden = !part.checked;
      place.hidden = run.hidden = Boolean(part.long);
      if (part.long) setText(wrong, part.long);
    },
  };
}
