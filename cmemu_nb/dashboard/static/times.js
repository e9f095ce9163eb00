// Times as text, as Python writes them: they are shown while the kernel sends nothing.

// Return a duration in milliseconds in at most two units: "950 µs", "1.9 ms", "12 s", "3 min 4 s". It is rounded down.
function durationText(milliseconds) {
  const time = Math.max(0, milliseconds);
  for (const [unit, length] of [["ns", 1e-6], ["µs", 1e-3], ["ms", 1], ["s", 1000]]) {
    if (time >= length * 1000 || time >= 60000) continue;
    const tenths = Math.floor((time * 10) / length + 1e-9);
    return `${tenths < 100 && tenths % 10 ? tenths / 10 : Math.floor(tenths / 10)} ${unit}`;
  }
  const seconds = Math.floor(time / 1000);
  const [large, length, small, part] = [["d", 86400, "h", 3600], ["h", 3600, "min", 60], ["min", 60, "s", 1]].find((each) => seconds >= each[1]);
  const rest = Math.floor((seconds % length) / part);
  return `${Math.floor(seconds / length)} ${large}${rest ? ` ${rest} ${small}` : ""}`;
}

// Return how long ago something was, in the largest unit: "3 s ago".
function agoText(milliseconds) {
  const seconds = Math.floor(milliseconds / 1000);
  const found = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]].find(([, length]) => seconds >= length);
  return found ? `${Math.floor(seconds / found[1])} ${found[0]} ago` : "just now";
}
