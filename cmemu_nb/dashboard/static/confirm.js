// The question before an action that loses something.

// Make the question, which takes the place of `actions`, the row of buttons, until it is answered: `ask(word, text, act)` shows
// it, and the button that is called `word` calls `act()`.
function confirmPart(actions) {
  const question = el("span");
  const sure = button("Confirm", "Do it", () => close()(), { class: "cmemu-button cmemu-danger" });
  const keep = button("Keep", "Change nothing", () => close());
  const element = el("div", { class: "cmemu-row cmemu-confirm", role: "alertdialog", "aria-label": "Confirm", hidden: true }, question, sure, keep);
  let asked = null;

  function ask(word, text, act) {
    asked = { act, opener: document.activeElement };
    setText(question, text);
    setText(sure, word);
    [actions.hidden, element.hidden] = [true, false];
    keep.focus();
  }

  // Show the actions again; returns what was to be done.
  function close() {
    const { act, opener } = asked;
    const focused = element.contains(document.activeElement);
    [actions.hidden, element.hidden] = [false, true];
    if (focused) opener?.focus();
    return act;
  }

  element.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    event.stopPropagation();
    close();
  });
  return { element, ask, close: () => element.hidden || close() };
}
