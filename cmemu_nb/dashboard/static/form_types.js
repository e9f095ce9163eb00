// The parts of a query's form, one for each type of Foundry's dialect.
//
// A part is { element, read(wrong), fill(node), rename(name) }. `read` returns JSON text: typed digits are copied into it
// and never converted to a number. If something is wrong, it shows the problem beside the input, adds the input to `wrong`
// and returns null. Without `wrong` it shows nothing and returns a draft: null for a missing value, a string for a wrong one.
// `fill` shows a value of a tree (see form_fill.js), undefined for one that is left out; it returns whether the part can show
// exactly this value.

const FORM_DEPTH = 8; // values that are nested deeper are written as JSON
const FORM_FIELDS = 1000; // at most so many are made at once; a struct that has more is written as JSON
const FORM_ROWS = 100; // a value that has more is filled in as JSON
const FORM_NAME = 100;
const FORM_VALUE = 60;
const FORM_REASON = 200;
const FORM_TEXT = { type: "text", autocomplete: "off", spellcheck: "false" };

// Cut an external text, never inside a character, and make its invisible characters visible.
function formCut(text, most = FORM_NAME) {
  const beginning = Array.from(text.slice(0, 2 * most + 2));
  return visible(beginning.length > most ? `${beginning.slice(0, most).join("")}…` : text);
}

// One value

const formExactly = (pattern) => (value) => (pattern.test(value.trim()) ? value.trim() : null);
const FORM_INTEGER = {
  expected: "an integer of any size, like -42",
  tag: "input",
  attributes: { ...FORM_TEXT, inputmode: "numeric" },
  shown: formNumber,
  json: formExactly(/^-?(0|[1-9]\d*)$/),
};
const FORM_FLOAT = {
  expected: "a number, like -1.5 or 2e-3",
  tag: "input",
  attributes: { ...FORM_TEXT, inputmode: "decimal" },
  shown: formNumber,
  json: formExactly(/^-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?$/i),
};
const FORM_STRING = { expected: "a text", tag: "textarea", attributes: { rows: 1 }, shown: formText, json: (value) => JSON.stringify(value) };
const FORM_BOOLEAN = { expected: "checked is true, unchecked is false", tag: "input", attributes: { type: "checkbox" }, shown: ({ text }) => text, json: (value) => value };
const FORM_DATE = { expected: "a date", tag: "input", attributes: { type: "date", max: "9999-12-31" }, shown: formText, json: formDate };
const FORM_TIMESTAMP = {
  expected: "a date and a time in UTC",
  unit: " (UTC)",
  tag: "input",
  attributes: { type: "datetime-local", step: "0.001", max: "9999-12-31T23:59:59.999" },
  shown: (node) => /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?)Z$/.exec(formText(node))?.[1],
  json: formTimestamp,
  same: (json, { value }) => Date.parse(JSON.parse(json)) === Date.parse(value),
};
const FORM_JSON = {
  expected: "JSON, which has no NaN and no Infinity",
  tag: "textarea",
  attributes: { rows: 2, spellcheck: "false" },
  shown: ({ text }) => formPretty(text),
  json: (value) => (formReason(value) ? null : value),
  reason: formReason,
  same: () => true,
};
const FORM_ONE_VALUE = new Map([
  ["integer", FORM_INTEGER],
  ["long", FORM_INTEGER],
  ["short", FORM_INTEGER],
  ["byte", FORM_INTEGER],
  ["float", FORM_FLOAT],
  ["double", FORM_FLOAT],
  ["decimal", { ...FORM_FLOAT, expected: "a decimal number, like 1.10", shown: formText, json: formDecimal }],
  ["string", FORM_STRING],
  ["binary", { ...FORM_STRING, expected: "a text, which is sent as it is" }],
  ["boolean", FORM_BOOLEAN],
  ["date", FORM_DATE],
  ["timestamp", FORM_TIMESTAMP],
]);

function formDecimal(value) {
  return /^[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i.test(value.trim()) ? JSON.stringify(value.trim()) : null;
}

function formDate(value) {
  return /^\d{4}-\d\d-\d\d$/.test(value) ? JSON.stringify(value) : null;
}

// The browser leaves out seconds and milliseconds that are zero.
function formTimestamp(value) {
  const found = /^(\d{4}-\d\d-\d\dT\d\d:\d\d)(:\d\d)?(\.\d{1,3})?$/.exec(value);
  return found && JSON.stringify(`${found[1]}${found[2] || ":00"}${(found[3] || ".").padEnd(4, "0")}Z`);
}

// Return why a text is not JSON; "" if it is.
function formReason(text) {
  try {
    JSON.parse(text);
    return "";
  } catch (error) {
    return error.message || "not JSON";
  }
}

// Make the label of an input, with a hint beside it.
function formHead(id, label, hint) {
  return el("span", { class: "cmemu-form-head" }, el("label", { for: id }, label), el("bdi", { id: `${id}-hint`, class: "cmemu-form-hint" }, hint));
}

// Make the input of one value, with its label, its hint and a place for a problem.
function formValue(type, name, hint, required = false) {
  const id = uniqueId("field");
  const named = el("bdi", {}, formCut(name));
  const problem = el("span", { id: `${id}-problem`, class: "cmemu-form-problem" });
  const description = { title: `Expected: ${type.expected}`, "aria-required": required && "true", "aria-describedby": `${id}-hint ${id}-problem` };
  const control = el(type.tag, { ...type.attributes, ...description, id, class: "cmemu-form-control", oninput: changed });
  const head = formHead(id, [named, type.unit], hint);
  const ticked = control.type === "checkbox";
  const element = el("div", { class: ticked ? "cmemu-form-field cmemu-form-tick" : "cmemu-form-field" }, ticked ? [control, head] : [head, control], problem);

  function changed() {
    showProblem();
    if (type.attributes.rows !== 1) return;
    control.style.height = "auto";
    control.style.height = `${control.scrollHeight + control.offsetHeight - control.clientHeight}px`;
  }

  // Show a problem, or with no arguments that there is none.
  function showProblem(...words) {
    if (words.length) control.setAttribute("aria-invalid", "true");
    else control.removeAttribute("aria-invalid");
    problem.replaceChildren(...words);
  }

  function showWrong(value) {
    const given = value.trim() ? JSON.stringify(formCut(value, FORM_VALUE)) : control.validity.badInput ? "only a part" : "nothing";
    const reason = value.trim() && type.reason ? ` (${formCut(type.reason(value), FORM_REASON)})` : "";
    showProblem(el("bdi", {}, named.textContent), `: expected ${type.expected}, given `, el("bdi", {}, given + reason), ".");
  }

  function read(wrong) {
    const value = ticked ? String(control.checked) : control.value;
    const json = type.json(value);
    if (!wrong) return json ?? (value.trim() ? JSON.stringify(value) : "null");
    showProblem();
    if (json === null) {
      showWrong(value);
      wrong.push(control);
    }
    return json;
  }

  function fill(node) {
    const value = node && type.shown(node);
    if (typeof value !== "string") return false;
    if (ticked) control.checked = value === "true";
    else control.value = value;
    changed();
    const json = type.json(ticked ? String(control.checked) : control.value);
    return json !== null && (type.same ? type.same(json, node) : formSame(json, node));
  }

  return { element, control, showProblem, read, fill, rename: (name) => setText(named, name) };
}

// Several values

const FORM_GROUPS = new Map([
  ["list", formList],
  ["set", formList],
  ["map", formMap],
  ["anonymousCustomType", formStruct],
  ["optionalType", formOptional],
]);

// Make the part for a value of a type. `at` has its depth and how many fields may still be made: see formTop.
function formPart(kind, name, at, required = false) {
  const type = schemaType(kind);
  const hint = `${schemaWords(kind)}${required ? ", required" : ""}`;
  const group = at.depth < FORM_DEPTH ? FORM_GROUPS.get(type) : null;
  const made = group && group(kind, name, hint, { ...at, depth: at.depth + 1 });
  if (made) return made;
  const one = FORM_ONE_VALUE.get(type);
  return one ? formValue(one, name, hint, required) : formValue(FORM_JSON, name, `${hint}, as JSON`, required);
}

// Parts that are made later, when someone opens them, may again have as many fields.
function formTop(depth = 0) {
  return { depth, room: { left: FORM_FIELDS } };
}

function formFrame(name, hint, ...children) {
  const named = el("bdi", {}, formCut(name));
  const legend = el("legend", { class: "cmemu-form-head" }, named, " ", el("bdi", { class: "cmemu-form-hint" }, hint));
  return { element: el("fieldset", { class: "cmemu-form-group" }, legend, children), rename: (name) => setText(named, name) };
}

// Join JSON texts between brackets, without those that are left out; null if one is wrong.
function formJoined(open, texts, close) {
  return texts.includes(null) ? null : `${open}${texts.filter((text) => text !== undefined).join(", ")}${close}`;
}

const formPair = (name, value) => (name === null || value === null ? null : value && `${name}: ${value}`);

// Make rows that can be added and removed; `make` returns { element, number(position) }. `fill(values, show)` makes a row
// for each value, which `show(row, value)` shows; it returns whether all rows can show theirs.
function formRows(noun, make) {
  const rows = [];
  const place = el("div", { class: "cmemu-form-rows" });
  const add = button(`add ${noun}`, `Add another ${noun}`, () => addRow().line.querySelector("input, textarea, button").focus());

  function addRow() {
    const row = make();
    row.remove = button("remove", "", () => removeRow(row));
    row.line = el("div", { class: "cmemu-form-row" }, row.element, row.remove);
    rows.push(row);
    place.append(row.line);
    renumber();
    return row;
  }

  function fill(values, show) {
    for (const { line } of rows.splice(0)) line.remove();
    return values.length <= FORM_ROWS && values.every((value) => show(addRow(), value));
  }

  function removeRow(row) {
    const position = rows.indexOf(row);
    rows.splice(position, 1);
    row.line.remove();
    renumber();
    (rows[Math.min(position, rows.length - 1)]?.remove ?? add).focus();
  }

  function renumber() {
    for (const [position, row] of rows.entries()) {
      row.number(position);
      row.remove.title = `Remove ${noun} ${position}`;
      row.remove.setAttribute("aria-label", `remove ${noun} ${position}`);
    }
  }

  return { rows, fill, elements: [place, add] };
}

function formList(kind, name, hint, at) {
  const { rows, fill, elements } = formRows("element", () => {
    const part = formPart(schemaIn(kind, schemaType(kind), "elementsType"), "", formTop(at.depth));
    return { element: part.element, read: part.read, fill: part.fill, number: (position) => part.rename(`element ${position}`) };
  });
  return {
    ...formFrame(name, hint, elements),
    read: (wrong) => formJoined("[", rows.map((row) => row.read(wrong)), "]"),
    fill: (node) => node?.kind === "array" && fill(node.value, (row, each) => row.fill(each)),
  };
}

function formMap(kind, name, hint, at) {
  const [keys, values] = [schemaIn(kind, "map", "keysType"), schemaIn(kind, "map", "valuesType")];
  const { rows, fill, elements } = formRows("entry", () => {
    // Keys are text on the wire, whatever their type is.
    const key = formValue(FORM_ONE_VALUE.get(schemaType(keys)) || FORM_STRING, "", schemaWords(keys));
    const value = formPart(values, "", formTop(at.depth));
    const number = (position) => [key.rename(`key ${position}`), value.rename(`value ${position}`)];
    return { key, value, number, element: el("div", { class: "cmemu-form-entry" }, key.element, value.element) };
  });
  const read = (wrong) => {
    const seen = new Set();
    return formJoined("{", rows.map(({ key, value }) => formPair(formKey(key, seen, wrong), value.read(wrong))), "}");
  };
  const fillRow = ({ key, value }, [text, node]) => (key.fill(formTree(JSON.stringify(text))) || key.fill(formTree(text) ?? undefined)) && value.fill(node);
  return { ...formFrame(name, hint, elements), read, fill: (node) => node?.kind === "object" && fill([...node.value], fillRow) };
}

// Read a map's key, which must not occur twice.
function formKey(key, seen, wrong) {
  const text = key.read(wrong);
  if (text === null) return null;
  const name = text.startsWith('"') ? text : JSON.stringify(text);
  if (wrong && seen.has(name)) {
    key.showProblem("The key ", el("bdi", {}, formCut(name, FORM_VALUE)), " occurs twice: expected another one.");
    wrong.push(key.control);
    return null;
  }
  seen.add(name);
  return name;
}

function formStruct(kind, name, hint, at) {
  const fields = schemaIn(kind, "anonymousCustomType", "fields");
  const names = schemaIsObject(fields) ? Object.keys(fields) : null;
  if (!names || names.length > at.room.left) return null;
  at.room.left -= names.length;
  const parts = names.map((each) => formChoice(fields[each], each, at, { words: "give", hint: schemaWords(fields[each]), checked: true }));
  const note = names.length ? null : el("span", { class: "cmemu-form-hint" }, "It has no fields.");
  const read = (wrong) => formJoined("{", parts.map((part, position) => formPair(JSON.stringify(names[position]), part.read(wrong))), "}");
  const fill = (node) => formFillAll(names.map((each, position) => [each, parts[position]]), node);
  return { ...formFrame(name, hint, parts.map((part) => part.element), note), read, fill };
}

function formOptional(kind, name, hint, at) {
  return formChoice(schemaIn(kind, "optionalType", "wrappedType"), name, at, { words: "give a value for", hint: `${hint}, otherwise null`, otherwise: "null" });
}

// Make a checkbox before a part that may be left out. `otherwise` is the value without it; undefined leaves it out.
function formChoice(kind, name, at, { words, hint, checked = false, otherwise }) {
  const id = uniqueId("give");
  const named = el("bdi", {}, formCut(name));
  const place = el("div", { class: "cmemu-form-inner", hidden: true });
  const description = { title: `Unchecked: it is ${otherwise || "left out"}`, "aria-describedby": `${id}-hint` };
  const box = el("input", { type: "checkbox", id, checked, ...description, onchange: show });
  const head = formHead(id, [`${words} `, named], hint);
  let inner = null;

  function show() {
    place.hidden = !box.checked;
    if (!box.checked || inner) return;
    inner = formPart(kind, name, checked ? at : formTop(at.depth));
    place.append(inner.element);
  }

  function rename(newName) {
    name = newName;
    setText(named, name);
    inner?.rename(name);
  }

  function fill(node) {
    const left = otherwise === "null" ? node?.kind === "null" : node === undefined;
    box.checked = !left;
    show();
    return left || inner.fill(node);
  }

  show();
  return { element: el("div", { class: "cmemu-form-choice" }, box, head, place), read: (wrong) => (box.checked ? inner.read(wrong) : otherwise), fill, rename };
}
