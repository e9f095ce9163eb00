// The form for a query, built from a function's schema, with a JSON side to write the query as text.

// Make the form for a schema, which is any JSON value. `read()` returns the query as JSON text; if an input is wrong, it
// shows the problem beside the input and returns null. `fill(text)` shows a query: in the form if its fields can show exactly
// this query, else on the JSON side. `defaults` is the JSON text of an object: the values with which its inputs begin.
function queryForm(schema, defaults = "") {
  const inputs = schemaInputs(schema);
  const json = formValue({ ...FORM_JSON, attributes: { ...FORM_JSON.attributes, rows: 8 } }, "Query", "as JSON");
  json.control.value = "{}";
  const sides = inputs.length && inputs.length <= FORM_FIELDS ? formSides(inputs, json, defaults) : { elements: [json.element], read: json.read, fill: () => false };
  return {
    element: el("div", { class: "cmemu-form" }, sides.elements),
    read() {
      const wrong = [];
      const query = sides.read(wrong);
      wrong[0]?.focus();
      return query;
    },
    fill(text) {
      if (sides.fill(text)) return;
      json.control.value = formPretty(text);
      json.showProblem();
    },
  };
}

// Make the two sides, the form and its JSON, and the buttons that switch between them.
function formSides(inputs, json, defaults) {
  const fields = el("div", { class: "cmemu-form-fields" });
  let parts = [];
  const toForm = button("Form", "Fill in the form; it has what you last filled in", () => show(true));
  const toJson = button("JSON", "Write the query as JSON; it starts with the values of the form", () => {
    if (fields.hidden) return;
    json.control.value = formPretty(readFields(null));
    json.showProblem();
    show(false);
  });

  function readFields(wrong) {
    return formJoined("{", parts.map(([name, part]) => formPair(JSON.stringify(name), part.read(wrong))), "}");
  }

  function make() {
    const at = formTop();
    parts = inputs.map(([name, input]) => [name, formInput(name, input, at)]);
    fields.replaceChildren(...parts.map(([, part]) => part.element));
  }

  // Fill in the defaults, or none of them if an input can't show its own. One that is null stays unchecked.
  function begin() {
    const given = formTree(defaults)?.value ?? new Map();
    const shown = parts.filter(([name]) => (given.get(name)?.kind ?? "null") !== "null");
    if (!shown.every(([name, part]) => part.fill(given.get(name)))) make();
  }

  function fill(text) {
    make();
    const filled = formFillAll(parts, formTree(text));
    if (!filled) make();
    show(filled);
    return filled;
  }

  function show(form) {
    fields.hidden = !form;
    json.element.hidden = form;
    toForm.setAttribute("aria-pressed", String(form));
    toJson.setAttribute("aria-pressed", String(!form));
  }

  make();
  begin();
  show(true);
  const row = el("div", { class: "cmemu-form-switch", role: "group", "aria-label": "How to write the query" }, toForm, toJson);
  return { elements: [row, fields, json.element], read: (wrong) => (fields.hidden ? json.read(wrong) : readFields(wrong)), fill };
}

// Make the part of one of a function's inputs: an input that may be left out has a checkbox before it.
function formInput(name, { kind, required }, at) {
  const optional = schemaType(kind) === "optionalType";
  if (required && !optional) return formPart(kind, name, at, true);
  const hint = `${schemaWords(kind)}, may be left out`;
  if (!optional) return formChoice(kind, name, at, { words: "give", hint });
  return formChoice(schemaIn(kind, "optionalType", "wrappedType"), name, at, { words: "give a value for", hint });
}

// Format JSON text in lines, without parsing its numbers.
function formPretty(json) {
  let depth = 0;
  const line = () => `\n${"  ".repeat(Math.min(depth, 40))}`;
  return json.replace(/"(?:[^"\\]|\\.)*"?|\{\s*\}|\[\s*\]|[[\]{},:]|\s+/g, (token) => {
    if (token === "{" || token === "[") return ((depth += 1), token + line());
    if (token === "}" || token === "]") return ((depth -= 1), line() + token);
    if (token === ",") return token + line();
    if (token === ":") return ": ";
    return token.trim();
  });
}

// Reading a schema

// Return a schema's inputs as [name, { kind, required }]; none for another dialect, or for a function that takes anything.
function schemaInputs(schema) {
  const inputs = schemaIn(schema, "inputs");
  if (!Array.isArray(inputs)) return [];
  const found = new Map();
  for (const each of inputs) {
    const [name, kind] = [schemaIn(each, "name"), schemaIn(each, "dataType")];
    if (typeof name !== "string" || !schemaType(kind)) return [];
    found.set(name, { kind, required: each.required !== false });
  }
  return [...found];
}

function schemaIsObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

// Return the value under keys in nested objects, or undefined.
function schemaIn(value, ...keys) {
  for (const key of keys) value = schemaIsObject(value) && Object.hasOwn(value, key) ? value[key] : undefined;
  return value;
}

// Return the name of a type; "" for something else, which takes any value.
function schemaType(kind) {
  const name = schemaIn(kind, "type");
  return typeof name === "string" ? name : "";
}

// Return a type in words, without the types nested in it.
function schemaWords(kind) {
  const type = schemaType(kind);
  const inside = (key) => schemaName(schemaIn(kind, type, key));
  if (type === "list" || type === "set") return `${type} of ${inside("elementsType")}`;
  if (type === "map") return `map of ${inside("keysType")} to ${inside("valuesType")}`;
  if (type === "optionalType") return `optional ${inside("wrappedType")}`;
  return schemaName(kind);
}

function schemaName(kind) {
  const type = schemaType(kind);
  if (type === "anonymousCustomType") return "struct";
  if (type === "optionalType") return "optional";
  return formCut(type) || "anything";
}
