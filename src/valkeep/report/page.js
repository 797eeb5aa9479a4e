// A cross-hair over each panel: the values of all its series at one moment. Without JavaScript the page is complete but for this.
for (const figure of document.querySelectorAll("figure[data-panel]")) {
  const panel = JSON.parse(figure.querySelector("script").textContent);
  const svg = figure.querySelector("svg"), cross = svg.querySelector(".cross"), tip = figure.querySelector(".tip");
  const nearest = (points, t) => {
    let low = 0, high = points.length - 1;
    while (high - low > 1) { const middle = (low + high) >> 1; if (points[middle][0] <= t) low = middle; else high = middle; }
    const [a, b] = [points[low], points[high]];
    return Math.abs(a[0] - t) <= Math.abs(b[0] - t) ? a : b;
  };
  const time = (t) => panel.ms ? `${((t - panel.zero) * 1000).toFixed(0)} ms` : `${(t - panel.zero).toFixed(2)} s`;
  const hide = () => { tip.style.visibility = cross.style.visibility = "hidden"; };
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), scale = box.width / panel.width;
    const x = (event.clientX - box.left) / scale;
    const t = panel.start + (x - panel.left) / (panel.right - panel.left) * (panel.end - panel.start);
    if (t < panel.start || t > panel.end) return hide();
    const rows = panel.spans.filter((s) => s.start <= t && t <= s.end).map((s) => s.name);
    tip.replaceChildren(time(t) + (rows.length ? ` · ${rows.join(", ")}` : ""));
    for (const series of panel.series) {
      if (!series.points.length || t < series.points[0][0] - series.near || t > series.points.at(-1)[0] + series.near) continue;
      const [at, value] = nearest(series.points, t);
      if (value === null || Math.abs(at - t) > series.near) continue;
      const row = document.createElement("div"), dot = document.createElement("i");
      dot.style.background = `var(--${series.tone})`;
      row.append(dot, `${series.name}: ${value.toLocaleString("en", { maximumFractionDigits: 1 })} ${series.unit}`);
      tip.append(row);
    }
    cross.setAttribute("x1", x); cross.setAttribute("x2", x);
    cross.style.visibility = tip.style.visibility = "visible";
    const left = x * scale;
    tip.style.left = left > box.width / 2 ? "auto" : `${left + 14}px`;
    tip.style.right = left > box.width / 2 ? `${box.width - left + 14}px` : "auto";
  });
}
