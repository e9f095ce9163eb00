// Below the timeline: how long the finished jobs that it shows ran and waited, on a logarithmic axis.

const BARS_PER_DECADE = 8;
const SHORTEST_TIME = 0.001; // milliseconds

function latencyPart() {
  const charts = { Run: latencyChart("Run time"), Wait: latencyChart("Queue time") };
  return {
    element: el("div", { class: "cmemu-timeline-latency" }, charts.Run.element, charts.Wait.element),
    show(jobs, places) {
      const [runs, waits] = [new Float64Array(places.length), new Float64Array(places.length)];
      let [ran, waited] = [0, 0];
      for (const place of places) {
        if (jobs.ended[place] === Infinity) continue;
        waits[waited++] = Math.max(jobs.left[place] - jobs.queued[place], SHORTEST_TIME);
        if (jobs.lane[place] >= 0) runs[ran++] = Math.max(jobs.ended[place] - jobs.left[place], SHORTEST_TIME);
      }
      charts.Run.show(runs.subarray(0, ran).sort());
      charts.Wait.show(waits.subarray(0, waited).sort());
    },
  };
}

function latencyChart(name) {
  const figures = el("span", { class: "cmemu-muted" });
  const bars = el("div", { class: "cmemu-timeline-bars" });
  const scale = el("div", { class: "cmemu-timeline-scale" });
  const element = el("figure", {}, el("figcaption", {}, el("strong", {}, name), " ", figures), bars, scale);

  function show(ordered) {
    const rank = (percent) => ordered[Math.max(1, Math.ceil((ordered.length * percent) / 100)) - 1];
    setText(figures, ordered.length ? `p50 ${durationText(rank(50))} · p95 ${durationText(rank(95))} · ${ordered.length.toLocaleString("en")} ${ordered.length === 1 ? "job" : "jobs"}` : "no job has finished");
    element.setAttribute("aria-label", `${name}: ${figures.textContent}`);
    bars.hidden = scale.hidden = !ordered.length;
    if (!ordered.length) return;
    const decade = (time) => Math.floor(Math.log10(time) + 1e-9);
    const [first, last] = [decade(ordered[0]), decade(ordered[ordered.length - 1]) + 1];
    const counts = new Array((last - first) * BARS_PER_DECADE).fill(0);
    for (const time of ordered) counts[Math.min(counts.length - 1, Math.floor((Math.log10(time) - first + 1e-9) * BARS_PER_DECADE))] += 1;
    const most = Math.max(...counts);
    const edge = (index) => durationText(10 ** (first + index / BARS_PER_DECADE));
    bars.replaceChildren(...counts.map((number, index) => styled({ height: number ? `max(2px, ${(100 * number) / most}%)` : "0" }, "span", { title: `${edge(index)} to ${edge(index + 1)}: ${number.toLocaleString("en")} ${number === 1 ? "job" : "jobs"}` })));
    scale.replaceChildren(...Array.from({ length: last - first + 1 }, (_, index) => el("span", {}, durationText(10 ** (first + index)))));
  }
  return { element, show };
}
