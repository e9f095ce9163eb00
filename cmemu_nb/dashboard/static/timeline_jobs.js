// The jobs of the timeline, in columns: what dashboard/timeline.py sends, and what is found in it.

const JOB_STATES = ["queued", "running", "ok", "function error", "failed"];
const [QUEUED, RUNNING, OK, FUNCTION_ERROR, FAILED] = JOB_STATES.keys();
const REMOVED = 255;
const MAX_TIMELINE_JOBS = 200000;
const JOB_COLUMNS = ["id", "runtime", "function", "lane", "state", "queued", "left", "ended"];

// The jobs that have arrived. Times are in milliseconds since `origin`; those that are not known yet are Infinity.
class TimelineJobs {
  constructor() {
    this.clear();
  }

  clear() {
    Object.assign(this, { number: 0, version: 0, origin: 0, now: 0, heardAt: 0, waiting: 0, removed: 0, places: new Map(), marks: [], edges: new Map() });
    this.names = { lanes: [], functions: [], runtimes: [] };
    for (const column of JOB_COLUMNS) this[column] = [];
  }

  get count() {
    return this.id.length - this.removed;
  }

  // Take in a message; returns false if one before it is missing.
  take(message) {
    if (message.first) this.clear();
    else if (message.number !== this.number + 1) return false;
    this.number = message.number;
    this.version += 1;
    this.edges.clear();
    if (message.first) this.origin = message.origin / 1000;
    [this.now, this.heardAt, this.waiting] = [message.now / 1000, performance.now(), message.left];
    for (const [kind, names] of Object.entries(this.names)) names.push(...message[kind]);
    this.marks.push(...message.marks.map((mark) => ({ ...mark, at: mark.at / 1000 })));
    for (const id of message.removed) this.remove(this.places.get(id));
    let queued = 0;
    message.id.forEach((end, index) => {
      queued += message.queued[index];
      this.put(message.prefix + end, message, index, queued / 1000);
    });
    if (this.removed > 1000 && this.removed > this.count) this.compact();
    if (this.count > MAX_TIMELINE_JOBS) this.forgetOldest();
    return true;
  }

  put(id, message, index, queued) {
    let place = this.places.get(id);
    if (place === undefined) this.places.set(id, (place = this.id.length));
    const [wait, run] = [message.wait[index], message.run[index]];
    const left = wait < 0 ? Infinity : queued + wait / 1000;
    const values = { id, runtime: message.runtime[index], function: message.function[index], lane: message.lane[index], state: message.state[index], queued, left, ended: run < 0 ? Infinity : left + run / 1000 };
    for (const column of JOB_COLUMNS) this[column][place] = values[column];
  }

  remove(place) {
    if (place === undefined || this.state[place] === REMOVED) return;
    this.places.delete(this.id[place]);
    this.state[place] = REMOVED;
    this.removed += 1;
  }

  compact() {
    const kept = [...this.places.values()].sort((one, other) => one - other);
    for (const column of JOB_COLUMNS) this[column] = kept.map((place) => this[column][place]);
    this.places = new Map(this.id.map((id, place) => [id, place]));
    this.removed = 0;
  }

  forgetOldest() {
    const oldest = [...this.places.values()].sort((one, other) => this.queued[one] - this.queued[other]);
    oldest.slice(0, MAX_TIMELINE_JOBS / 2).forEach((place) => this.remove(place));
    this.compact();
  }

  // Return the present time of the emulator; `runs` says whether its clock moves on.
  present(runs) {
    return this.now + (runs ? performance.now() - this.heardAt : 0);
  }

  // Return from when to when there are jobs: until `now` while one is unfinished.
  extent(now) {
    let [from, to] = [Infinity, -Infinity];
    for (let place = 0; place < this.id.length; place += 1) {
      if (this.state[place] === REMOVED) continue;
      if (this.queued[place] < from) from = this.queued[place];
      const ended = Math.min(this.ended[place], now);
      if (ended > to) to = ended;
    }
    return from === Infinity ? null : { from, to: Math.max(to, from + 0.001) };
  }

  // Return the times at which jobs of a runtime entered the queue, and those at which they left it, each in order.
  queueEdges(runtime) {
    if (!this.edges.has(runtime)) {
      const [queued, left] = [new Float64Array(this.id.length), new Float64Array(this.id.length)];
      let count = 0;
      for (let place = 0; place < this.id.length; place += 1) {
        if (this.runtime[place] !== runtime || this.state[place] === REMOVED) continue;
        queued[count] = this.queued[place];
        left[count] = this.left[place];
        count += 1;
      }
      this.edges.set(runtime, { queued: queued.subarray(0, count).sort(), left: left.subarray(0, count).sort() });
    }
    return this.edges.get(runtime);
  }

  // Return the highest number of queued jobs in each of `width` columns between two times, and the highest of all.
  queueDepths(runtime, { from, to }, width) {
    const { queued, left } = this.queueEdges(runtime);
    const depths = new Uint32Array(width);
    let entered = firstAfter(queued, from);
    let departed = firstAfter(left, from);
    let [depth, most] = [entered - departed, entered - departed];
    for (let x = 0; x < width; x += 1) {
      const end = from + ((x + 1) * (to - from)) / width;
      let highest = depth;
      while ((entered < queued.length && queued[entered] <= end) || (departed < left.length && left[departed] <= end)) {
        // A job that leaves at the moment at which another enters makes room first.
        if (departed < left.length && left[departed] <= (queued[entered] ?? Infinity)) departed += 1;
        else entered += 1;
        depth = entered - departed;
        if (depth > highest) highest = depth;
      }
      depths[x] = highest;
      if (highest > most) most = highest;
    }
    return { depths, most };
  }

  // Return when a job begins on the screen: with its run, or with its failure if it never ran.
  begin(place) {
    return this.lane[place] < 0 ? this.ended[place] : this.left[place];
  }

  // Return the job that begins next after a job, or before it; `step` is 1 or -1.
  neighbour(id, step) {
    const from = this.places.get(id);
    const at = from === undefined ? -step * Infinity : this.begin(from);
    let [found, best] = [undefined, step * Infinity];
    for (let place = 0; place < this.id.length; place += 1) {
      if (this.state[place] === REMOVED || place === from) continue;
      const begin = this.begin(place);
      if (begin === Infinity) continue;
      const follows = begin === at && from !== undefined ? (place - from) * step > 0 : (begin - at) * step > 0;
      if (!follows) continue;
      const nearer = found === undefined || (begin - best) * step < 0 || (begin === best && (place - found) * step < 0);
      if (nearer) [found, best] = [place, begin];
    }
    return found === undefined ? null : this.id[found];
  }
}

// Return the index of the first of the ordered values that is after `at`.
function firstAfter(values, at) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= at) low = middle + 1;
    else high = middle;
  }
  return low;
}
