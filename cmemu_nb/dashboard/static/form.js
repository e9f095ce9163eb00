// A form for a query, made of a function's schema, with a JSON side for those who would rather write.

// Make the form for a schema, which is any JSON value. `read()` gives the query as JSON text, or null after telling
// beside each wrong input what is wrong; `fill(text)` shows a query on the JSON side.
function queryForm(schema) {
  const inputs = schemaInputs(schema);
  const json = formValue({ ...FORM_JSON, attributes: { ...FORM_JSON.attributes, rows: 8 } }, "Query", "as JSON");
  json.control.value = "{}";
  const sides = inputs.length && inputs.length <= FORM_FIELDS ? formSides(inputs, json) : { elements: [json.element], read: json.read, showJson() {} };
  return {
    element: el("div", { class: "cmemu-form" }, sides.elements),
    read() {
      const wrong = [];
      const query = sides.read(wrong);
      wrong[0]?.focus();
      return query;
    },
    fill(text) {
      json.control.value = text;
      json.tell();
      sides.showJson();
    },
  };
}

// Make the two sides, the form and its JSON, and the buttons that switch between them.
function formSides(inputs, json) {
  const at = formTop();
  const parts = inputs.map(([name, input]) => [JSON.stringify(name), formInput(name, input, at)]);
  const fields = el("div", { class: "cmemu-form-fields" }, parts.map(([, part]) => part.element));
  const toForm = button("Form", "Fill in a form; it is as you left it", () => show(true));
  const toJson = button("JSON", "Write the query as JSON; it begins with what the form says", () => {
    if (fields.hidden) return;
    json.control.value = formPretty(readFields(null));
    json.tell();
    show(false);
  });

  function readFields(wrong) {
    return formJoined("{", parts.map(([name, part]) => formPair(name, part.read(wrong))), "}");
  }

  function show(form) {
    fields.hidden = !form;
    json.element.hidden = form;
    toForm.setAttribute("aria-pressed", String(form));
    toJson.setAttribute("aria-pressed", String(!form));
  }

  show(true);
  const row = el("div", { class: "cmemu-form-switch", role: "group", "aria-label": "How to write the query" }, toForm, toJson);
  return { elements: [row, fields, json.element], read: (wrong) => (fields.hidden ? json.read(wrong) : readFields(wrong)), showJson: () => show(false) };
}

// Make the part of one of a function's inputs: what may be left out has a checkbox before it.
function formInput(name, { kind, required }, at) {
  const optional = schemaType(kind) === "optionalType";
  if (required && !optional) return formPart(kind, name, at, true);
  const hint = `${schemaWords(kind)}, may be left out`;
  if (!optional) return formChoice(kind, name, at, { words: "give", hint });
  return formChoice(schemaIn(kind, "optionalType", "wrappedType"), name, at, { words: "give a value for", hint });
}

// Lay JSON text out in lines, without reading its numbers.
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

// Give a schema's inputs as [name, { kind, required }]; none for another dialect, and for a function that takes anything.
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

// Give what stands under keys in nested objects, or undefined.
function schemaIn(value, ...keys) {
  for (const key of keys) value = schemaIsObject(value) && Object.hasOwn(value, key) ? value[key] : undefined;
  return value;
}

// Give the name of a type; "" of what is none, which takes any value.
function schemaType(kind) {
  const name = schemaIn(kind, "type");
  return typeof name === "string" ? name : "";
}

// Say a type in words, without what is nested in it.
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
