// How the timeline is drawn: rows of a canvas, one for the events, one for each queue, one for each lane.

const ROW_HEIGHTS = { events: 18, runtime: 20, queue: 36, more: 20 };
const [LANE_HEIGHT, LOW_LANE_HEIGHT, MANY_LANES] = [20, 14, 16];
const MAX_DRAWN_LANES = 500; // browsers limit the height of a canvas
const NARROWEST_BAR = 1.5;
const MARK_WIDTH = 9;
const FUNCTION_COLOURS = 8;
const TICK_STEPS = [1, 2, 5].flatMap((digit) => [1e-3, 1e-2, 0.1, 1, 10, 100, 1000].map((power) => digit * power));
TICK_STEPS.push(...[10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 432000, 864000].map((seconds) => seconds * 1000));
TICK_STEPS.sort((one, other) => one - other);

// Return the rows of what lies between two times, with their tops and heights, and the height of all.
function timelineRows(jobs, { from, to }, now) {
  const lanes = new Set();
  const runtimes = new Set();
  for (let place = 0; place < jobs.id.length; place += 1) {
    if (jobs.state[place] === REMOVED || jobs.queued[place] > to || Math.min(jobs.ended[place], now) < from) continue;
    runtimes.add(jobs.runtime[place]);
    if (jobs.lane[place] >= 0 && jobs.left[place] <= to) lanes.add(jobs.lane[place]);
  }
  const laneHeight = lanes.size > MANY_LANES ? LOW_LANE_HEIGHT : LANE_HEIGHT;
  let left = MAX_DRAWN_LANES;
  // The row of the events is there in every view, so that the rows below it do not jump.
  const rows = jobs.marks.length ? [{ kind: "events", label: "events", height: ROW_HEIGHTS.events }] : [];
  for (const runtime of [...runtimes].sort((one, other) => one - other)) {
    const name = jobs.names.runtimes[runtime];
    if (runtimes.size > 1) rows.push({ kind: "runtime", label: name, height: ROW_HEIGHTS.runtime });
    rows.push({ kind: "queue", runtime, label: "queue", height: ROW_HEIGHTS.queue });
    const its = [...lanes].filter((lane) => jobs.names.lanes[lane][0] === runtime).sort((one, other) => inOrder(jobs.names.lanes[one], jobs.names.lanes[other]));
    rows.push(...its.slice(0, left).map((lane) => ({ kind: "lane", lane, runtime, label: jobs.names.lanes[lane][3], height: laneHeight })));
    left = Math.max(0, left - its.length);
  }
  if (lanes.size > MAX_DRAWN_LANES) rows.push({ kind: "more", label: `${lanes.size - MAX_DRAWN_LANES} more lanes`, height: ROW_HEIGHTS.more });
  let top = 0;
  for (const row of rows) {
    row.top = top;
    top += row.height;
  }
  return { rows, height: Math.max(top, 40) };
}

function inOrder(one, other) {
  return one[1] < other[1] ? -1 : one[1] > other[1] ? 1 : one[2] - other[2];
}

// Return the times of the ticks, a few round ones.
function timelineTicks({ from, to }, width, base) {
  const most = Math.max(2, Math.floor(width / 110));
  const first = (step) => Math.ceil((from - base) / step);
  const count = (step) => Math.floor((to - base) / step) - first(step) + 1;
  const step = TICK_STEPS.find((each) => count(each) <= most) ?? (to - from) / most;
  return { step, ticks: Array.from({ length: Math.max(0, count(step)) }, (_, index) => base + (first(step) + index) * step) };
}

// Draws into a canvas. `picture` has the jobs, the rows, the view, the present, what colours mean, and what is marked.
class TimelineCanvas {
  constructor(canvas) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
  }

  draw(picture) {
    Object.assign(this, picture);
    const scale = window.devicePixelRatio || 1;
    const { canvas, pen, width, height } = this;
    const [wide, high] = [Math.round(width * scale), Math.round(height * scale)];
    if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    this.readColours();
    this.drawGrid();
    const failures = this.drawLanes();
    for (const row of this.rows) {
      if (row.kind === "queue") this.drawQueue(row, failures.get(row.runtime) ?? []);
      if (row.kind === "events") this.drawEvents(row);
    }
    this.drawChosen();
  }

  readColours() {
    const style = getComputedStyle(this.canvas);
    const read = (name) => style.getPropertyValue(`--cmemu-timeline-${name}`).trim();
    this.states = [read("queue"), read("running"), read("ok"), read("error"), read("failed")];
    this.functions = Array.from({ length: FUNCTION_COLOURS + 1 }, (_, index) => read(index < FUNCTION_COLOURS ? `function${index}` : "others"));
    [this.line, this.text, this.back] = [read("line"), read("text"), read("back")];
  }

  x(at) {
    return ((at - this.view.from) / (this.view.to - this.view.from)) * this.width;
  }

  fill(colour, x, y, width, height) {
    this.pen.fillStyle = colour;
    this.pen.fillRect(x, y, width, height);
  }

  colour(place) {
    const { jobs } = this;
    return this.coloursMean === "function" ? this.functions[Math.min(jobs.function[place], FUNCTION_COLOURS)] : this.states[jobs.state[place]];
  }

  drawGrid() {
    for (const at of this.ticks) this.fill(this.line, Math.round(this.x(at)), 0, 1, this.height);
    for (const row of this.rows) if (row.kind !== "lane") this.fill(this.line, 0, row.top, this.width, 1);
  }

  // Draw the bars of all lanes; returns the times at which jobs failed in the queue, by runtime.
  drawLanes() {
    const { jobs, now, width, view } = this;
    const rowOf = new Map(this.rows.filter((row) => row.kind === "lane").map((row) => [row.lane, row]));
    const failures = new Map();
    const bands = new Map();
    const bars = new Map();
    const flagged = [];
    for (let place = 0; place < jobs.id.length; place += 1) {
      if (jobs.state[place] === REMOVED || jobs.left[place] > view.to) continue;
      const end = Math.min(jobs.ended[place], Math.max(now, jobs.left[place]));
      if (end < view.from) continue;
      if (jobs.lane[place] < 0) {
        if (jobs.state[place] === FAILED) (failures.get(jobs.runtime[place]) ?? failures.set(jobs.runtime[place], []).get(jobs.runtime[place])).push(end);
        continue;
      }
      const row = rowOf.get(jobs.lane[place]);
      if (!row) continue;
      const [left, right] = [Math.max(this.x(jobs.left[place]), -2), Math.min(this.x(end), width + 2)];
      if (right - left < NARROWEST_BAR) this.addToBand(bands, row, place, left, right);
      else {
        const colour = this.colour(place);
        (bars.get(colour) ?? bars.set(colour, []).get(colour)).push(row, left, right);
        if (jobs.state[place] !== OK) flagged.push(place, row, left, right);
      }
    }
    for (const [colour, each] of bars) {
      this.pen.fillStyle = colour;
      for (let index = 0; index < each.length; index += 3) this.pen.fillRect(each[index + 1], each[index].top + 2, Math.max(1, each[index + 2] - each[index + 1] - 0.5), each[index].height - 4);
    }
    for (const [row, band] of bands) this.drawBand(row, band);
    for (let index = 0; index < flagged.length; index += 4) this.drawFlag(flagged[index], flagged[index + 1], flagged[index + 2], flagged[index + 3]);
    return failures;
  }

  // Jobs that are narrower than a pixel share the pixels: how much of each was busy, with what, and which errors.
  addToBand(bands, row, place, left, right) {
    const { jobs, width } = this;
    if (!bands.has(row)) bands.set(row, { busy: new Float32Array(width), place: new Int32Array(width).fill(-1), error: new Uint8Array(width), failed: new Uint8Array(width) });
    const band = bands.get(row);
    const x = Math.min(Math.max(Math.floor((left + right) / 2), 0), width - 1);
    band.busy[x] += Math.max(right - left, 0.1);
    band.place[x] = place;
    if (jobs.state[place] === FUNCTION_ERROR) band.error[x] = 1;
    if (jobs.state[place] === FAILED) band.failed[x] = 1;
  }

  drawBand(row, band) {
    const { pen, width } = this;
    const [top, height] = [row.top + 2, row.height - 4];
    for (let x = 0; x < width; x += 1) {
      if (band.place[x] < 0) continue;
      pen.globalAlpha = 0.35 + 0.65 * Math.min(1, band.busy[x]);
      this.fill(this.coloursMean === "function" ? this.colour(band.place[x]) : this.states[OK], x, top, 1, height);
    }
    pen.globalAlpha = 1;
    const part = Math.max(3, height * 0.4);
    for (let x = 0; x < width; x += 1) {
      if (band.error[x]) this.fill(this.states[FUNCTION_ERROR], x - 0.5, top + height - part, 2, part);
      if (band.failed[x]) this.fill(this.states[FAILED], x - 0.5, top, 2, part);
    }
  }

  // Mark what an outcome is where colours mean functions, and by its shape where they mean outcomes.
  drawFlag(place, row, left, right) {
    const { jobs } = this;
    const state = jobs.state[place];
    const [top, height] = [row.top + 2, row.height - 4];
    if (this.coloursMean === "function") {
      const part = Math.max(3, height * 0.3);
      if (state === RUNNING) this.fill(this.states[RUNNING], right - 3, top, 3, height);
      else this.fill(this.states[state], left, state === FAILED ? top : top + height - part, Math.max(2, right - left - 0.5), part);
    } else if (state !== RUNNING && right - left >= MARK_WIDTH + 3 && height >= 10) this.drawMark(state, (left + right) / 2, top + height / 2, this.back);
  }

  // Draw a failed job's cross or a function error's triangle, which can be recognised without colours.
  drawMark(state, x, y, colour) {
    const { pen } = this;
    pen.beginPath();
    if (state === FAILED) {
      for (const slope of [1, -1]) {
        pen.moveTo(x - 3, y - 3 * slope);
        pen.lineTo(x + 3, y + 3 * slope);
      }
      pen.strokeStyle = colour;
      pen.lineWidth = 2;
      pen.stroke();
      return;
    }
    pen.moveTo(x, y - 4);
    pen.lineTo(x + 4.5, y + 4);
    pen.lineTo(x - 4.5, y + 4);
    pen.fillStyle = colour;
    pen.fill();
  }

  drawQueue(row, failures) {
    const { pen, width, now } = this;
    const { depths, most } = this.jobs.queueDepths(row.runtime, this.view, width);
    row.most = most;
    row.depths = depths;
    const [base, high] = [row.top + row.height - 1, row.height - 6];
    const end = Math.min(width, Math.ceil(this.x(now)));
    if (most) {
      pen.beginPath();
      pen.moveTo(0, base);
      for (let x = 0; x < end; x += 1) {
        const y = base - (high * depths[x]) / most;
        pen.lineTo(x, y);
        pen.lineTo(x + 1, y);
      }
      pen.lineTo(end, base);
      pen.closePath();
      pen.globalAlpha = 0.3;
      pen.fillStyle = this.states[QUEUED];
      pen.fill();
      pen.globalAlpha = 0.8;
      pen.strokeStyle = this.states[QUEUED];
      pen.lineWidth = 1;
      pen.stroke();
      pen.globalAlpha = 1;
    }
    this.drawSpread(failures, (x) => this.drawMark(FAILED, x, row.top + 9, this.states[FAILED]));
  }

  // Draw marks at times, none over another.
  drawSpread(times, mark) {
    let last = -Infinity;
    for (const x of times.map((at) => this.x(at)).sort((one, other) => one - other)) {
      if (x - last < MARK_WIDTH) continue;
      mark(x);
      last = x;
    }
  }

  drawEvents(row) {
    const { pen } = this;
    for (const mark of this.jobs.marks) {
      const x = this.x(mark.at);
      if (x < 0 || x > this.width) continue;
      pen.globalAlpha = 0.25;
      this.fill(this.text, x - 0.5, row.top + row.height - 4, 1, this.height);
      pen.globalAlpha = 1;
      pen.fillStyle = this.text;
      pen.beginPath();
      if (/exited|removed|deleted/.test(mark.words)) pen.rect(x - 3.5, row.top + 5, 7, 7);
      else if (/configured/.test(mark.words)) pen.arc(x, row.top + 8.5, 3.5, 0, 7);
      else {
        pen.moveTo(x - 3.5, row.top + 4.5);
        pen.lineTo(x + 4, row.top + 8.5);
        pen.lineTo(x - 3.5, row.top + 12.5);
      }
      pen.fill();
    }
  }

  // Draw the frames of the job under the pointer and of the one that the keys have chosen, and how long they waited.
  drawChosen() {
    const { jobs, pen, now } = this;
    for (const id of new Set([this.hovered, this.selected])) {
      const place = jobs.places.get(id);
      const row = place === undefined ? null : this.rows.find((each) => (jobs.lane[place] < 0 ? each.kind === "queue" && each.runtime === jobs.runtime[place] : each.lane === jobs.lane[place]));
      if (!row) continue;
      const [queued, left] = [this.x(jobs.queued[place]), this.x(Math.min(jobs.left[place], now))];
      const right = this.x(Math.min(jobs.ended[place], Math.max(now, jobs.left[place])));
      this.fill(this.text, queued, row.top + row.height / 2 - 0.5, left - queued, 1);
      this.fill(this.text, queued - 0.5, row.top + 4, 1, row.height - 8);
      pen.strokeStyle = this.text;
      pen.lineWidth = id === this.selected ? 2 : 1.5;
      pen.strokeRect(left - 1, row.top + 1, Math.max(right - left, 2) + 1.5, row.height - 2);
    }
  }
}
