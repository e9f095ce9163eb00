// The keys of the whole dashboard, and what keeps them from the notebook around it.

const PAGE_KEYS = new Set(["s", "f", "g", "p", "c"]); // with Ctrl or Cmd: save, find, print, and with Shift the palette
const TEXT_INPUTS = "textarea, input:not([type=checkbox], [type=radio], [type=button]), [contenteditable]";

// Keep the keys that are typed in the dashboard from the notebook around it: JupyterLab and Notebook 7 take those of their
// command mode (r, d d, x, Enter, arrows) from everything in an output that has the focus and is no text input, and undo from
// text inputs too. They look for the attribute from the element that has the focus upwards, and stop at the first that a
// shortcut is meant for, which is mostly that element itself (https://github.com/jupyterlab/jupyterlab/pull/15774).
// Other front ends, such as VS Code, listen for keys on the window, so every key ends here.
function keepKeys(root) {
  root.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true"));
  root.addEventListener("keydown", (event) => {
    if (/^F\d+$/.test(event.key)) return;
    event.stopPropagation();
    // A key for the whole page is dispatched again outside the dashboard, where the attribute does not suppress it.
    if (isForThePage(event) && !root.parentElement.dispatchEvent(new KeyboardEvent(event.type, event))) event.preventDefault();
  });
}

// Keep the focus in the dashboard when what has it is hidden or removed: else the next keys would be for the notebook.
function keepFocus(root) {
  let focused = null;
  root.addEventListener("focusin", ({ target }) => (focused = target));
  root.addEventListener("focusout", ({ target }) => {
    if (target.checkVisibility()) focused = null;
  });
  new MutationObserver(() => {
    if (!focused || focused.checkVisibility()) return;
    if ([focused, document.body, null].includes(document.activeElement)) root.focus({ preventScroll: true });
    else focused = null;
  }).observe(root, { subtree: true, childList: true, attributes: true, attributeFilter: ["hidden", "open", "class"] });
}

function isForThePage(event) {
  return (event.ctrlKey || event.metaKey) && !event.altKey && PAGE_KEYS.has(event.key.toLowerCase());
}

// Handle the keys of the whole dashboard: Escape closes what is open, / goes to the search, ? shows the keys, Ctrl+Enter
// submits a form. `close()` closes the innermost open part, `help()` shows the keys. A part that uses one of these keys itself calls `preventDefault()`.
function dashboardKeys(root, close, help) {
  root.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || event.altKey) return;
    const command = event.ctrlKey || event.metaKey;
    const typing = event.target.matches(TEXT_INPUTS);
    if (event.key === "Enter" && command) event.target.closest("form:not([role=search])")?.requestSubmit();
    else if (command) return;
    else if (event.key === "Escape" && !event.target.matches("input[type=search]")) close();
    else if (event.key === "/" && !typing) [...root.querySelectorAll("input[type=search]")].find((each) => each.checkVisibility())?.focus();
    else if (event.key === "?" && !typing) help();
    else return;
    event.preventDefault();
  });
}
