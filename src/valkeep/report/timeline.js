// The timeline of a run: operations, rates, faults, steps of the recovery and log lines on one axis. The data come from unpack.js.
// One canvas, drawn again when the window or the colours change; what follows the mouse (hair, tool tip, selection) lies above it.
(() => {
  const LEFT = 58, RIGHT = 18, ROW = 17, OK = 0, FAIL = 1, INFO = 2, LOST = 4;
  const OUTCOMES = ["ok", "failed", "unknown", "lost"];

  const from = (list, at) => {  // the first place whose value is not below
    let low = 0, high = list.length;
    while (low < high) { const middle = (low + high) >> 1; if (list[middle] < at) low = middle + 1; else high = middle; }
    return low;
  };
  const niceStep = (span, about) => {
    const power = 10 ** Math.floor(Math.log10(span / about));
    return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= span / about) ?? power * 10;
  };
  const short = (value) => value >= 1e6 ? `${+(value / 1e6).toPrecision(3)}M` : value >= 1e3 ? `${+(value / 1e3).toPrecision(3)}k` : `${+value.toPrecision(3)}`;
  const inMs = (seconds) => seconds >= 10 ? `${seconds.toFixed(2)} s` : `${+(seconds * 1000).toPrecision(4)} ms`;
  const element = (tag, text = "", className = "") => Object.assign(document.createElement(tag), { textContent: text, className });

  function build(section, data, ops) {
    const stage = section.querySelector(".stage"), canvas = stage.querySelector("canvas"), tip = stage.querySelector(".tip");
    const hair = stage.appendChild(element("div", "", "hair")), chosen = stage.appendChild(element("div", "", "chosen"));
    const legend = section.querySelector(".legend"), tools = section.querySelector(".tools"), pen = canvas.getContext("2d");
    const lines = [...document.querySelectorAll(".log.synced > div")].map((row) => ({ row, at: +row.dataset.at, node: row.dataset.node, level: row.className }));
    const logNodes = [...new Set(lines.map((line) => line.node))].sort();
    const hidden = new Set(), length = data.end - data.start, trend = data.trend, rowsOfMarks = Math.min(data.marks.length, 8);
    let view = [data.start, data.end], mode = "node", groups = [], colours = new Map(), places = {}, width = 0, drag = null, asked = 0;

    const colour = (name) => {
      if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
      return colours.get(name);
    };
    const took = (i) => ops.took[i] >= 0 ? ops.took[i] : data.end - ops.at[i];
    const endsAs = (i) => ops.kind[i] & LOST ? 3 : ops.kind[i] & 3;

    // -------------------------------------------------------------------------------------------------- which operation has which colour
    const MODES = {
      node: ["node that answered", (i) => ops.node[i], (n) => data.nodes[n] || "none", (n) => `k${n % 10}`],
      function: ["operation", (i) => ops.fn[i], (n) => data.functions[n], (n) => `k${n % 10}`],
      client: ["client", (i) => ops.client[i], (n) => data.clients[n], (n) => `k${n % 10}`],
      outcome: ["outcome", endsAs, (n) => OUTCOMES[n], (n) => ["k0", "warn", "ink", "bad"][n]],
    };
    const special = [];
    for (let i = 0; i < ops.count; i++) if (endsAs(i) !== OK) special.push(i);
    const specialAt = special.map((i) => ops.at[i]);
    const lows = [...ops.took].filter((seconds) => seconds > 0).sort((a, b) => a - b);
    const lowest = Math.max(1e-5, lows[Math.floor(lows.length / 1000)] ?? 1e-4);
    let longest = lowest * 100;
    for (let i = 0; i < ops.count; i++) longest = Math.max(longest, took(i));
    const bottomLog = Math.floor(Math.log10(lowest)), topLog = Math.max(Math.ceil(Math.log10(longest)), bottomLog + 2);

    function regroup() {
      const [, of] = MODES[mode], sizes = new Map();
      for (let i = 0; i < ops.count; i++) sizes.set(of(i), (sizes.get(of(i)) ?? 0) + 1);
      groups = [...sizes.keys()].sort((a, b) => a - b).map((number) => ({ number, name: MODES[mode][2](number), tone: MODES[mode][3](number), places: new Uint32Array(sizes.get(number)), fill: 0 }));
      const byNumber = new Map(groups.map((group) => [group.number, group]));
      for (let i = 0; i < ops.count; i++) { const group = byNumber.get(of(i)); group.places[group.fill++] = i; }
      for (const group of groups) group.at = Float64Array.from(group.places, (i) => ops.at[i]);
      hidden.clear();
      showLegend();
    }
    function showLegend() {
      const chips = groups.map((group) => {
        const chip = element("button"), dot = element("i");
        dot.style.background = `var(--${group.tone})`;
        chip.append(dot, `${group.name} (${group.places.length.toLocaleString("en")})`);
        chip.setAttribute("aria-pressed", String(!hidden.has(group.number)));
        chip.title = "show or hide";
        chip.addEventListener("click", () => { if (!hidden.delete(group.number)) hidden.add(group.number); showLegend(); redraw(); });
        return chip;
      });
      const counts = [0, 0, 0, 0];
      for (const i of special) counts[endsAs(i)]++;
      const signs = [[3, "● lost", "bad"], [FAIL, "× failed", "warn"], [INFO, "◇ unknown", "ink"]].filter(([kind]) => counts[kind]).map(([kind, text, tone]) => {
        const sign = element("span", `${text} (${counts[kind].toLocaleString("en")})`);
        sign.style.color = `var(--${tone})`;
        return sign;
      });
      legend.replaceChildren(...chips, ...signs);
    }

    // --------------------------------------------------------------------------------------------------------------------------- drawing
    const x = (at) => LEFT + (at - view[0]) / (view[1] - view[0]) * (width - LEFT - RIGHT);
    const at = (place) => view[0] + (place - LEFT) / (width - LEFT - RIGHT) * (view[1] - view[0]);
    const y = (seconds) => {
      const part = (Math.log10(Math.max(seconds, 10 ** bottomLog)) - bottomLog) / (topLog - bottomLog);
      return places.ops.bottom - part * (places.ops.bottom - places.ops.top);
    };

    function layout() {
      const lanes = [];
      for (const fault of data.faults) {
        let lane = lanes.findIndex((end) => end <= fault.start);
        if (lane < 0) lane = lanes.push(0) - 1;
        lanes[lane] = fault.end; fault.lane = lane;
      }
      let top = 4;
      const take = (name, height, gap) => { places[name] = { top, bottom: top + height }; top += height + gap; };
      take("faults", lanes.length * 21, 4);
      take("marks", rowsOfMarks * 14, 18);
      take("ops", 250, 26);
      take("rates", 110, lines.length ? 24 : 8);
      take("log", lines.length ? logNodes.length * ROW : 0, 4);
      take("axis", 18, 8);
      take("whole", 34, 2);
      return top;
    }

    function redraw() { if (!asked) asked = requestAnimationFrame(() => { asked = 0; draw(); }); }

    function draw() {
      const height = layout(), ratio = devicePixelRatio || 1;
      width = stage.clientWidth;
      canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio); canvas.style.height = `${height}px`;
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.font = "11.5px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', Arial, sans-serif";
      pen.lineJoin = "round";
      const inner = () => { pen.save(); pen.beginPath(); pen.rect(LEFT, 0, width - LEFT - RIGHT, height); pen.clip(); };
      inner(); drawFaults(); pen.restore();
      drawGrid();
      inner(); drawOperations(); drawPercentiles(); drawRates(); drawLog(); drawMarks(); pen.restore();
      drawAxis(); drawWhole();
      const visible = lines.filter((line) => { const out = line.at < view[0] || line.at > view[1]; line.row.classList.toggle("outside", out && !isWhole()); return !out; });
      section.dataset.window = `${view[0].toFixed(6)} ${view[1].toFixed(6)}`;
      section.dataset.lines = String(visible.length);
      section.classList.add("drawn");
    }
    const isWhole = () => view[0] <= data.start && view[1] >= data.end;

    function drawFaults() {
      pen.fillStyle = colour("band");
      for (const span of data.spans) if (span.band) pen.fillRect(x(span.start), places.faults.top, Math.max(x(span.end) - x(span.start), 2), places.log.bottom - places.faults.top);
      for (const fault of data.faults) {
        const left = x(fault.start), right = Math.max(x(fault.end), left + 2), row = places.faults.top + fault.lane * 21;
        if (right < LEFT || left > width) continue;
        pen.fillStyle = colour("bad"); pen.fillRect(left, row, Math.max(right - left, 2), 18);
        const wide = pen.measureText(fault.name).width, inside = Math.min(right, width - RIGHT) - Math.max(left, LEFT) > wide + 10;
        pen.textAlign = "left";
        pen.fillStyle = inside ? colour("card") : colour("bad");
        const beside = right + 5 + wide > width - RIGHT ? left - wide - 5 : right + 5;
        pen.fillText(fault.name, inside ? Math.max(left, LEFT) + 6 : beside, row + 13);
      }
    }
    function title(text, top) { pen.fillStyle = colour("ink"); pen.textAlign = "left"; pen.font = `600 ${pen.font}`; pen.fillText(text, LEFT, top - 7); pen.font = pen.font.replace(/^(600|bold) /, ""); }
    function level(row, text, kind) {
      pen.fillStyle = colour(kind); pen.fillRect(LEFT, Math.round(row), width - LEFT - RIGHT, 1);
      pen.fillStyle = colour("soft"); pen.textAlign = "right"; pen.fillText(text, LEFT - 7, row + 4);
    }
    function drawGrid() {
      title("Latency of each operation (logarithmic; lines: median and 99th percentile of the acked)", places.ops.top);
      for (let power = bottomLog; power <= topLog; power++) level(y(10 ** power), power < -3 ? `${+(10 ** (power + 6)).toPrecision(1)} µs` : power < 0 ? `${10 ** (power + 3)} ms` : `${10 ** power} s`, power === bottomLog ? "axis-line" : "grid");
      title("Operations per second; acked, by node:", places.rates.top);
      let beside = LEFT + pen.measureText("Operations per second; acked, by node:").width * 1.12 + 10;
      const names = Object.keys(trend.acked).map((node) => [node || "?", `k${data.nodes.indexOf(node) % 10}`]);
      for (const [name, tone] of [...names, ["failed", trend.failed.some(Boolean) && "warn"], ["unknown", trend.unknown.some(Boolean) && "ink"]]) {
        if (!tone) continue;
        pen.fillStyle = colour(tone); pen.fillText(name, beside, places.rates.top - 7);
        beside += pen.measureText(name).width + 10;
      }
      const step = niceStep(peak(), 3);
      for (let value = 0; value <= peak() * 1.001; value += step) level(rateY(value), short(value), value ? "grid" : "axis-line");
      if (lines.length) title("Log lines", places.log.top);
      pen.textAlign = "right"; pen.fillStyle = colour("soft");
      logNodes.forEach((node, row) => pen.fillText(node || "run", LEFT - 7, places.log.top + row * ROW + 13));
    }
    let highest = 0;
    function peak() {
      if (!highest) {
        const count = trend.failed.length;
        for (let i = 0; i < count; i++) highest = Math.max(highest, trend.failed[i], trend.unknown[i], ...Object.values(trend.acked).map((line) => line[i]));
        const step = niceStep(highest || 1, 3);
        highest = Math.ceil((highest || 1) / step) * step;
      }
      return highest;
    }
    const rateY = (value) => places.rates.bottom - value / peak() * (places.rates.bottom - places.rates.top);

    function drawOperations() {
      const span = view[1] - view[0];
      let visible = 0;
      for (const group of groups) visible += hidden.has(group.number) ? 0 : from(group.at, view[1]) - from(group.at, view[0]);
      const size = visible > 20000 ? 1.6 : visible > 4000 ? 2.2 : visible > 600 ? 3 : 4.5, lasting = visible < 4000;
      const seen = new Uint8Array(Math.ceil(width) * Math.ceil(places.ops.bottom + 20));  // of more than three on one pixel nothing more would be seen
      for (const group of groups) {
        if (hidden.has(group.number)) continue;
        pen.fillStyle = colour(group.tone); pen.globalAlpha = visible > 20000 ? .55 : .8;
        const first = from(group.at, view[0] - span * .02), last = from(group.at, view[1]);
        for (let p = first; p < last; p++) {
          const i = group.places[p], row = y(took(i)), left = x(ops.at[i]);
          if (endsAs(i) !== OK) continue;
          const pixel = (row | 0) * Math.ceil(width) + (left | 0);
          if (seen[pixel] > 2) continue;
          seen[pixel]++;
          pen.fillRect(left - size / 2, row - size / 2, size, size);
          if (lasting) pen.fillRect(left, row - .5, Math.max(x(ops.at[i] + took(i)) - left, 0), 1);
        }
      }
      pen.globalAlpha = 1;
      drawSpecial();
    }
    function drawSpecial() {
      const of = MODES[mode][1], last = from(specialAt, view[1]);
      const first = from(specialAt, view[0] - longest);
      const paths = { [FAIL]: new Path2D(), [INFO]: new Path2D(), 3: new Path2D() }, seen = new Set(), few = last - first < 3000;
      for (let p = first; p < last; p++) {
        const i = special[p], kind = endsAs(i), row = y(took(i)), left = x(ops.at[i]), path = paths[kind];
        if (hidden.has(of(i)) || (kind !== INFO && left < LEFT - 4)) continue;
        const pixel = ((row | 0) * 4 + kind) * 65536 + (left | 0);
        if (!few && seen.has(pixel)) continue;
        seen.add(pixel);
        if (kind !== INFO && !few) path.rect(left - 1.5, row - 1.5, 3, 3);
        else if (kind === FAIL) { path.moveTo(left - 2.5, row - 2.5); path.lineTo(left + 2.5, row + 2.5); path.moveTo(left - 2.5, row + 2.5); path.lineTo(left + 2.5, row - 2.5); }
        else if (kind === INFO) {
          path.moveTo(left - 3.5, row); path.lineTo(left, row - 3.5); path.lineTo(left + 3.5, row); path.lineTo(left, row + 3.5); path.closePath();
          const right = x(ops.at[i] + took(i));
          if (right > left + 5 && few) { path.moveTo(left + 3.5, row); path.lineTo(right, row); }
        } else { path.moveTo(left + 3, row); path.arc(left, row, 3, 0, 7); }
      }
      pen.lineWidth = 1.2;
      pen.strokeStyle = pen.fillStyle = colour("warn");
      if (few) pen.stroke(paths[FAIL]); else pen.fill(paths[FAIL]);
      pen.strokeStyle = colour("ink"); pen.globalAlpha = .7; pen.stroke(paths[INFO]); pen.globalAlpha = 1;
      pen.fillStyle = colour("bad"); pen.fill(paths[3]);
    }
    function drawLine(values, place, tone, wide = 1.4) {
      pen.beginPath();
      let open = false;
      values.forEach((value, i) => {
        if (value === null) { open = false; return; }
        const left = x(trend.start + (i + .5) * trend.step), row = place(value);
        if (open) pen.lineTo(left, row); else pen.moveTo(left, row);
        open = true;
      });
      pen.strokeStyle = colour(tone); pen.lineWidth = wide; pen.stroke();
    }
    function drawPercentiles() {
      for (const [line, tone] of [[trend.p50, "ink"], [trend.p99, "ink"]]) { drawLine(line, (ms) => y(ms / 1000), "card", 3); drawLine(line, (ms) => y(ms / 1000), tone, 1.1); }
    }
    function drawRates() {
      const rare = (values) => values.map((value, i) => value || values[i - 1] || values[i + 1] ? value : null);  // no line along zero
      for (const [node, line] of Object.entries(trend.acked)) drawLine(rare(line), rateY, `k${data.nodes.indexOf(node) % 10}`, 1.6);
      drawLine(rare(trend.failed), rateY, "warn");
      drawLine(rare(trend.unknown), rateY, "ink", 1);
    }
    function drawLog() {
      for (const line of lines) {
        const left = x(line.at);
        if (left < LEFT - 2 || left > width) continue;
        pen.fillStyle = colour({ warning: "warn", error: "bad" }[line.level.split(" ")[0]] ?? "plain");
        pen.fillRect(left - 1, places.log.top + logNodes.indexOf(line.node) * ROW + 3, 2.5, ROW - 5);
      }
    }
    function drawMarks() {
      const taken = new Array(rowsOfMarks).fill(LEFT);
      for (const mark of data.marks) {
        const left = x(mark.at), wide = pen.measureText(mark.label).width + 10;
        if (left < LEFT || left > width - RIGHT) continue;
        pen.strokeStyle = pen.fillStyle = colour(mark.tone); pen.globalAlpha = .8; pen.setLineDash([2, 3]); pen.lineWidth = 1;
        const start = left + wide > width - RIGHT ? left - wide : left, row = taken.findIndex((end) => end <= start + 1);
        const top = places.marks.top + Math.max(row, 0) * 14;
        pen.beginPath(); pen.moveTo(left, top); pen.lineTo(left, places.log.bottom); pen.stroke(); pen.setLineDash([]); pen.globalAlpha = 1;
        if (row < 0) continue;
        taken[row] = start + wide;
        pen.textAlign = start < left ? "right" : "left";
        pen.fillText(mark.label, start < left ? left - 4 : left + 4, top + 10);
      }
    }
    function ticks(low, high, count, draw) {
      const step = niceStep(high - low, count), digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
      for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-6; value += step) draw(value, `${value.toFixed(digits)} s`.replace(/^-(0(\.0+)? s)$/, "$1"));
    }
    function drawAxis() {
      const { top } = places.axis;
      pen.fillStyle = colour("axis-line"); pen.fillRect(LEFT, top, width - LEFT - RIGHT, 1);
      ticks(view[0], view[1], Math.max(3, width / 110), (value, text) => {
        pen.fillStyle = colour("axis-line"); pen.fillRect(x(value), top, 1, 5);
        pen.fillStyle = colour("soft"); pen.textAlign = "center"; pen.fillText(text, x(value), top + 16);
      });
    }
    const wholeX = (time) => LEFT + (time - data.start) / length * (width - LEFT - RIGHT);
    function drawWhole() {
      const { top, bottom } = places.whole;
      pen.fillStyle = colour("paper"); pen.fillRect(LEFT, top, width - LEFT - RIGHT, bottom - top);
      for (const fault of data.spans) if (fault.band) { pen.fillStyle = colour("band"); pen.fillRect(wholeX(fault.start), top, Math.max(wholeX(fault.end) - wholeX(fault.start), 2), bottom - top); }
      for (const [node, line] of Object.entries(trend.acked)) {
        pen.fillStyle = colour(`k${data.nodes.indexOf(node) % 10}`); pen.globalAlpha = .55;
        line.forEach((value, i) => { const high = value / peak() * (bottom - top - 4), left = wholeX(trend.start + i * trend.step); if (high > 0) pen.fillRect(left, bottom - high, Math.max(Math.min(wholeX(trend.start + (i + 1) * trend.step), width - RIGHT) - left, 1), high); });
      }
      pen.globalAlpha = 1; pen.strokeStyle = colour("ink"); pen.lineWidth = 1.2;
      pen.strokeRect(Math.max(wholeX(view[0]), LEFT) + .5, top + .5, Math.max(wholeX(view[1]) - wholeX(view[0]) - 1, 3), bottom - top - 1);
    }

    // ---------------------------------------------------------------------------------------------------------------------- what is there
    function tell(px, py) {
      const inside = (place) => py >= place.top - 6 && py <= place.bottom + 6;
      const time = at(px), rows = [];
      if (inside(places.ops)) { const i = nearest(px, py); if (i >= 0) return aboutOperation(i); }
      for (const fault of data.faults) if (inside(places.faults) && px >= x(fault.start) - 3 && px <= Math.max(x(fault.end), x(fault.start)) + 3) rows.push(`${fault.name}${fault.note ? `: ${fault.note}` : ""}`, `${inMs(fault.end - fault.start)} from ${fault.start.toFixed(3)} s on`);
      for (const mark of data.marks) if (Math.abs(x(mark.at) - px) <= 4) rows.push(`${mark.label} at ${mark.at.toFixed(4)} s`);
      if (inside(places.log)) {
        const node = logNodes[Math.floor((py - places.log.top) / ROW)], near = lines.filter((line) => line.node === node && Math.abs(x(line.at) - px) <= 4);
        for (const line of near.slice(0, 6)) rows.push(`${line.at.toFixed(3)} s ${line.row.lastChild.textContent}`);
        for (const line of lines) line.row.classList.toggle("near", near.includes(line));
        if (near.length) scrollTo(near[0].row);
      }
      const bucket = Math.floor((time - trend.start) / trend.step);
      if (inside(places.rates) && bucket >= 0 && bucket < trend.failed.length) {
        for (const [node, line] of Object.entries(trend.acked)) if (line[bucket]) rows.push(`${node || "?"}: ${Math.round(line[bucket]).toLocaleString("en")} acked/s`);
        if (trend.failed[bucket]) rows.push(`failed: ${Math.round(trend.failed[bucket]).toLocaleString("en")} /s`);
        if (trend.unknown[bucket]) rows.push(`unknown: ${Math.round(trend.unknown[bucket]).toLocaleString("en")} /s`);
        if (trend.p50[bucket] !== null) rows.push(`median ${inMs(trend.p50[bucket] / 1000)}, 99th percentile ${inMs(trend.p99[bucket] / 1000)}`);
      }
      return [`${time.toFixed(4)} s`, ...rows];
    }
    function scrollTo(row) { const list = row.parentElement; list.scrollTop = row.offsetTop - list.clientHeight / 2; }
    function nearest(px, py) {
      const of = MODES[mode][1];
      let best = -1, least = 81;
      const first = from(ops.at, at(px - 9)), last = from(ops.at, at(px + 9));
      const look = (i, left) => {
        if (hidden.has(of(i))) return;
        const away = (left - px) ** 2 + (y(took(i)) - py) ** 2 - (endsAs(i) === OK ? 0 : 9);  // what is rare is easier to hit
        if (away < least) { least = away; best = i; }
      };
      for (let i = first; i < last; i++) look(i, x(ops.at[i]));
      const end = from(specialAt, at(px));
      for (let p = from(specialAt, at(px) - longest); p < end; p++) {  // the line of one that waited
        const i = special[p];
        if (endsAs(i) === INFO && at(px) <= ops.at[i] + took(i)) look(i, px);
      }
      return best;
    }
    function aboutOperation(i) {
      const kind = endsAs(i), rows = [`${data.functions[ops.fn[i]]} ${data.keys[ops.key[i]]}`];
      rows.push(`${ops.kind[i] & LOST ? "ok, but LOST: acked, and gone at the end" : OUTCOMES[kind]}${ops.took[i] >= 0 ? ` after ${inMs(ops.took[i])}` : ", never answered"}`);
      rows.push(`client ${data.clients[ops.client[i]]}${data.nodes[ops.node[i]] ? ` → ${data.nodes[ops.node[i]]}` : ""}, at ${ops.at[i].toFixed(6)} s`);
      if (ops.kind[i] & HAS_VALUE) rows.push(`value ${BigInt.asIntN(64, ops.value[ops.valueAt[i]])}`);
      if (ops.kind[i] & HAS_RESULT) rows.push(`result ${BigInt.asIntN(64, ops.result[ops.resultAt[i]])}`);
      if (ops.error[i]) rows.push(data.errors[ops.error[i]]); else if (data.errors[0] && kind) rows.push(data.errors[0]);
      return rows;
    }
    function follow(px, py) {
      const rows = tell(px, py);
      tip.replaceChildren(element("b", rows[0]), ...rows.slice(1).map((row) => element("div", row)));
      hair.style.cssText = `left:${px}px;top:${places.faults.top}px;height:${places.log.bottom - places.faults.top}px;visibility:visible`;
      tip.style.visibility = "visible";
      tip.style.top = `${Math.min(py + 14, places.axis.bottom - 20)}px`;
      tip.style.left = px > width / 2 ? "auto" : `${px + 14}px`; tip.style.right = px > width / 2 ? `${width - px + 14}px` : "auto";
    }
    function leave() { tip.style.visibility = hair.style.visibility = "hidden"; }

    // ------------------------------------------------------------------------------------------------------------------------- moving it
    function show(low, high) {
      const span = Math.min(Math.max(high - low, 2e-5), length);
      low = Math.min(Math.max((low + high - span) / 2, data.start), data.end - span);
      view = [low, low + span];
      leave(); redraw();
    }
    const zoom = (factor, around = (view[0] + view[1]) / 2) => show(around - (around - view[0]) * factor, around + (view[1] - around) * factor);
    const pan = (part) => { const by = (view[1] - view[0]) * part; show(Math.max(view[0] + by, data.start), Math.min(view[1] + by, data.end) === data.end ? data.end : view[1] + by); };
    const place = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };

    canvas.addEventListener("pointerdown", (event) => {
      const [px, py] = place(event);
      if (event.button > 1) return;
      canvas.setPointerCapture(event.pointerId);
      const strip = py >= places.whole.top;
      drag = { px, view: [...view], kind: strip ? "strip" : event.shiftKey || event.button === 1 || event.pointerType === "touch" ? "move" : "choose" };
      if (strip) { const middle = data.start + (px - LEFT) / (width - LEFT - RIGHT) * length, half = (view[1] - view[0]) / 2; show(middle - half, middle + half); drag.view = [...view]; }
    });
    canvas.addEventListener("pointermove", (event) => {
      const [px, py] = place(event);
      if (!drag) { if (px >= LEFT && px <= width - RIGHT && py < places.axis.top) follow(px, py); else leave(); return; }
      const seconds = drag.view[1] - drag.view[0], usable = width - LEFT - RIGHT;
      if (drag.kind === "choose") chosen.style.cssText = `left:${Math.min(px, drag.px)}px;width:${Math.abs(px - drag.px)}px;top:${places.faults.top}px;height:${places.log.bottom - places.faults.top}px;visibility:visible`;
      else { const by = (drag.kind === "move" ? (drag.px - px) * seconds : (px - drag.px) * length) / usable; show(drag.view[0] + by, drag.view[1] + by); }
    });
    const release = (event) => {
      if (!drag) return;
      const [px] = place(event), { kind, px: began } = drag;
      drag = null; chosen.style.visibility = "hidden";
      if (kind === "choose" && event.type === "pointerup" && Math.abs(px - began) > 4) show(...[at(px), at(began)].sort((a, b) => a - b));
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", () => { if (!drag) leave(); });
    canvas.addEventListener("dblclick", () => show(data.start, data.end));
    canvas.addEventListener("wheel", (event) => {
      if (event.ctrlKey || event.metaKey) { event.preventDefault(); zoom(Math.exp(event.deltaY * .004), at(place(event)[0])); }
      else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) { event.preventDefault(); pan(event.deltaX / width); }
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const action = { "+": () => zoom(.5), "=": () => zoom(.5), "-": () => zoom(2), ArrowLeft: () => pan(-.2), ArrowRight: () => pan(.2), 0: () => show(data.start, data.end) }[event.key];
      if (action && !event.ctrlKey && !event.metaKey) { event.preventDefault(); action(); }
    });
    for (const line of lines) line.row.addEventListener("pointerenter", () => { if (line.at >= view[0] && line.at <= view[1]) hair.style.cssText = `left:${x(line.at)}px;top:${places.faults.top}px;height:${places.log.bottom - places.faults.top}px;visibility:visible`; });

    const button = (text, hint, action, className = "") => { const one = element("button", text, className); one.title = hint; one.addEventListener("click", action); return one; };
    const choice = element("select");
    for (const [name, [words]] of Object.entries(MODES)) choice.append(Object.assign(element("option", words), { value: name }));
    choice.addEventListener("change", () => { mode = choice.value; regroup(); redraw(); });
    const label = element("label", "Colour: ");
    label.append(choice);
    tools.append(label, button("whole run", "double click does the same", () => show(data.start, data.end)), button("+", "zoom in", () => zoom(.5)), button("−", "zoom out", () => zoom(2)));
    data.faults.slice(0, 8).forEach((fault, n) => tools.append(button(fault.name, "zoom to this fault and what came of it", () => {
      const next = data.faults[n + 1]?.start ?? data.end, last = Math.max(fault.end, ...data.marks.filter((mark) => mark.at >= fault.start && mark.at < next).map((mark) => mark.at));
      const room = Math.max((last - fault.start) * .15, .1);
      show(fault.start - room, last + room);
    }, "fault")));
    tools.append(element("span", "drag: zoom in · shift-drag: move · ctrl-wheel: zoom", "keys"));

    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { colours = new Map(); redraw(); });
    new ResizeObserver(() => { if (stage.clientWidth !== width) redraw(); }).observe(stage);
    regroup();
    draw();
  }

  for (const section of document.querySelectorAll("section.timeline")) {
    unpack(section.querySelector("script.packed").textContent).then(([data, ops]) => build(section, data, ops)).catch((error) => {
      section.append(Object.assign(document.createElement("p"), { className: "unable", textContent: `This browser can not unpack the operations (${error}); the tables below are complete.` }));
    });
  }
})();
