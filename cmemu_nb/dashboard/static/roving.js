// Lists of which Tab reaches one element, and in which the arrow keys, Home and End move on.

// Make the elements of `container` that match `selector` such a list. `keys` are those for the previous and the next
// element. `onmove(element)` is called for the element that a key has moved the focus to. Elements may come and go: call
// the returned function after a change, with the element that Tab is to reach, if it is to be another one than before.
function roving(container, selector, { keys = ["ArrowUp", "ArrowDown"], onmove = null } = {}) {
  const elements = () => [...container.querySelectorAll(selector)].filter((element) => !element.closest("[hidden]"));
  let current = null;

  function update(element = current) {
    const all = elements();
    current = all.includes(element) ? element : all[0];
    for (const each of all) {
      const index = each === current ? 0 : -1;
      if (each.tabIndex !== index) each.tabIndex = index;
    }
  }

  container.addEventListener("focusin", ({ target }) => {
    const element = target.closest(selector);
    if (element && container.contains(element)) update(element);
  });
  container.addEventListener("keydown", (event) => {
    const all = elements();
    const from = all.indexOf(event.target.closest(selector));
    if (from < 0 || event.target !== all[from] || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const to = { [keys[0]]: from - 1, [keys[1]]: from + 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = all[Math.min(Math.max(to, 0), all.length - 1)];
    next.focus();
    if (next !== event.target) onmove?.(next);
  });
  return update;
}

// Call `change()`, which may move or remove elements of `container`; the focus stays on its element, or goes to the container's
// first that Tab reaches.
function keepingFocus(container, change) {
  const focused = container.contains(document.activeElement) ? document.activeElement : null;
  change();
  if (!focused || document.activeElement === focused) return;
  const next = focused.isConnected ? focused : container.querySelector("[tabindex='0']");
  next?.focus({ preventScroll: true });
}
