// The Timeline tab: the last jobs as a Gantt chart, and a histogram of their times.

function chartsPart(dashboard) {
  const timeline = el("div", { class: "cmemu-chart" });
  const latency = el("div", { class: "cmemu-chart" });
  return {
    element: el("div", {}, timeline, latency),
    show() {
      const charts = dashboard.model.get("charts");
      if (!charts.timeline) return;
      drawn(timeline, charts.timeline);
      drawn(latency, charts.latency);
    },
    parts: ["charts"],
  };
}
