// The summary below the dashboard is for readers without a kernel: it is hidden while the dashboard is updated.

// Make the style that hides the summary, also one that is written anew. It ends with the dashboard's element. The page
// outside notebooks has no summary.
function summaryPart(dashboard) {
  const name = dashboard.model.get("summary");
  const element = name ? el("style", { media: "not all" }, `.${name}, .jp-OutputArea-child:has(.${name}) { display: none; }`) : null;
  let heardAt = 0;
  function look() {
    if (element) element.media = Date.now() - heardAt < SILENT_MS ? "all" : "not all";
  }
  return {
    element,
    parts: ["flow"],
    show() {
      heardAt = Date.now();
      look();
    },
    look,
  };
}
