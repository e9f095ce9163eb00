// Filling a form with a query: JSON as a tree that keeps the text of every value, so that no digit of a number is lost.

// Return the tree of a JSON text, or null if it is not JSON, has a name twice in an object, or is nested too deeply. A node is
// { kind, text, value }: the value of an array is an array of nodes, that of an object a map of nodes by their names.
function formTree(text) {
  if (formReason(text)) return null;
  const tokens = [...text.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{},:]|[^\s[\]{},:"]+/g)];
  let at = 0;

  function read() {
    const start = tokens[at++];
    const [kind, value] = start[0] === "{" ? ["object", readObject()] : start[0] === "[" ? ["array", readArray()] : formLeaf(start[0]);
    const end = tokens[at - 1];
    return { kind, value, text: text.slice(start.index, end.index + end[0].length) };
  }

  // Call `readOne` for each item up to the closing bracket.
  function readItems(close, readOne) {
    while (tokens[at][0] !== close) {
      readOne();
      if (tokens[at][0] === ",") at += 1;
    }
    at += 1;
  }

  function readArray() {
    const items = [];
    readItems("]", () => items.push(read()));
    return items;
  }

  function readObject() {
    const items = new Map();
    readItems("}", () => {
      const name = JSON.parse(tokens[at][0]);
      if (items.has(name)) throw new RangeError(`${name} occurs twice`);
      at += 2;
      items.set(name, read());
    });
    return items;
  }

  try {
    return read();
  } catch (error) {
    if (error instanceof RangeError) return null; // a name that occurs twice, or too many nested calls
    throw error;
  }
}

function formLeaf(token) {
  if (token.startsWith('"')) return ["string", JSON.parse(token)];
  if (token === "null") return ["null", null];
  return token === "true" || token === "false" ? ["boolean", token === "true"] : ["number", token];
}

// What a control shows of a node; undefined if it can't show this kind of value.
function formNumber({ kind, text }) {
  return kind === "number" ? text : undefined;
}

function formText({ kind, value }) {
  return kind === "string" ? value : undefined;
}

// Return whether the JSON text that a control gives is the value of a node.
function formSame(json, { kind, text, value }) {
  return kind === "string" ? JSON.parse(json) === value : json === text;
}

// Fill parts by their names with the values of an object; returns whether they can show exactly this object.
function formFillAll(parts, node) {
  if (node?.kind !== "object") return false;
  const names = new Set(parts.map(([name]) => name));
  return [...node.value.keys()].every((name) => names.has(name)) && parts.every(([name, part]) => part.fill(node.value.get(name)));
}
