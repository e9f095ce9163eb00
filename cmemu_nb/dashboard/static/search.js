// The search line of the jobs list, as the kernel reads it in search.py; here it is applied to the rows of the list, which
// have the beginnings of queries and results. tests/searches.json has the cases that both must satisfy.

const SEARCH_VALUES = {
  outcome: ["queued", "running", "ok", "error", "failed"],
  status: ["queued", "running", "succeeded", "failed"],
};
const SEARCH_KEYS = { fn: "fn", function: "fn", runtime: "runtime", id: "id", outcome: "outcome", status: "status" };
const SEARCH_TERM = /\s*(-?)(?:([A-Za-z]+):|([^\s:="-][^\s:="]*)=)?("(?:[^"\\]|\\[\s\S])*"?|[^\s"]\S*)?/g;
const SEARCH_NUMBER = /^-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
const MAX_DIGITS = 15;

// Return the conditions of a search line, and a sentence about the first that can't be understood, "" if there is none.
function searchTerms(search) {
  const terms = [];
  let problem = "";
  for (const [, minus, key, field, raw = ""] of search.matchAll(SEARCH_TERM)) {
    let value = raw.startsWith('"') ? raw.slice(1).replace(/"$/, "").replace(/\\([\s\S])/g, "$1") : raw;
    const name = field ? "=" : key ? SEARCH_KEYS[key.toLowerCase()] || "" : "text";
    if (!name) problem ||= `There is no key “${key}:”. Keys are fn:, outcome:, status:, runtime: and id:; x=493 searches a field, "${key}:…" in quotes a text.`;
    if (name in SEARCH_VALUES && value) {
      const known = SEARCH_VALUES[name].find((each) => each.startsWith(value.toLowerCase()));
      if (!known) problem ||= `“${name}:” is one of ${SEARCH_VALUES[name].join(", ")}.`;
      value = known;
    }
    if (name && value) terms.push({ key: name, value, field: field || "", negated: Boolean(minus) });
  }
  return { terms, problem };
}

// Return whether a row of the list satisfies every condition.
function searchMatches(terms, row) {
  return terms.every((term) => searchHas(term, row) !== term.negated);
}

function searchHas({ key, value, field }, row) {
  const wanted = value.toLowerCase();
  if (key === "text") return [row.key, row.function, row.runtime, row.query, row.result].some((text) => text.toLowerCase().includes(wanted.replace(/^…/, "")));
  if (key === "=") return [row.query, row.result].some((text) => jsonValues(text, field).some((each) => searchIs(each, value)));
  if (key === "fn") return searchLike(row.function, value);
  if (key === "runtime") return searchLike(row.runtime, value);
  if (key === "id") return row.key.includes(wanted.replace(/^…/, ""));
  return row[key] === value;
}

// Return whether a text is the pattern, in any case; `*` stands for any text.
function searchLike(text, pattern) {
  const [first, ...parts] = pattern.toLowerCase().split("*");
  const whole = text.toLowerCase();
  if (!parts.length) return whole === first;
  const last = parts.pop();
  if (!whole.startsWith(first) || !whole.endsWith(last) || whole.length < first.length + last.length) return false;
  let rest = whole.slice(first.length, whole.length - last.length);
  for (const part of parts) {
    const place = rest.indexOf(part);
    if (place < 0) return false;
    rest = rest.slice(place + part.length);
  }
  return true;
}

function searchIs(value, wanted) {
  if (value.startsWith('"')) {
    try {
      return searchLike(JSON.parse(value), wanted);
    } catch {
      return false;
    }
  }
  const [text, other] = [value, wanted].map((each) => each.replace(/\s/g, ""));
  if (Math.max(text.length, other.length) <= MAX_DIGITS && SEARCH_NUMBER.test(text) && SEARCH_NUMBER.test(other)) return Number(text) === Number(other);
  return searchLike(text, other);
}

// Return the JSON texts of a field of an object: of its key, or of a path of keys with dots.
function jsonValues(text, field) {
  const fields = jsonFields(text);
  const found = fields.has(field) ? [fields.get(field)] : [];
  const dot = field.indexOf(".");
  const inner = dot > 0 ? fields.get(field.slice(0, dot)) : undefined;
  return inner === undefined ? found : [...found, ...jsonValues(inner, field.slice(dot + 1))];
}

// Return the fields of an object in JSON text, each as JSON text, as far as the text goes: it may be cut.
function jsonFields(text) {
  const token = /\s*("(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+)/y;
  const fields = new Map();
  let depth = 0;
  let [name, begin] = [null, 0];
  for (let found = token.exec(text); found; found = token.exec(text)) {
    const each = found[1];
    if (depth === 0 && each !== "{") break;
    if (depth === 1 && (each === "," || each === "}")) {
      if (name !== null && begin) fields.set(name, text.slice(begin, token.lastIndex - 1).trim());
      [name, begin] = [null, 0];
    } else if (depth === 1 && name === null && each.startsWith('"')) name = searchString(each);
    else if (depth === 1 && each === ":") begin ||= token.lastIndex;
    if (each === "{" || each === "[") depth += 1;
    if (each === "}" || each === "]") depth -= 1;
  }
  return fields;
}

function searchString(json) {
  try {
    return JSON.parse(json);
  } catch {
    return null;
  }
}
