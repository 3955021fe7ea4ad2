"use strict";
{
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const phone = matchMedia("(max-width: 640px)").matches;
  const options = { responsive: true, displayModeBar: false, doubleClick: "reset" };
  if (data.language === "fr") {
    Plotly.register({ moduleType: "locale", name: "fr", dictionary: {}, format: { decimal: ",", thousands: "\u202f" } });
    options.locale = "fr";
  }
  // The words are painted first, then the map, then what lies below it.
  const later = (draw) => requestAnimationFrame(() => setTimeout(draw));
  if (data.points) later(() => drawMap(data.points, data.map));
  if (data.scree) later(() => drawScree(data.scree));

  function drawScree({ data: traces, layout }) {
    if (phone) layout.height = 300;
    Plotly.newPlot("scree-plot", traces, layout, options);
  }

  function drawMap(points, { data: traces, layout }) {
    const plot = document.getElementById("map-plot");
    const frame = document.getElementById("map-frame");
    const [axisX, axisY, highlight] = ["axis-x", "axis-y", "highlight"].map((id) => document.getElementById(id));
    const component = (select) => Number(select.value);
    const title = (select) => ({ text: `PC${component(select) + 1}` });
    let current = null;

    if (phone) layout.height = 420;
    // A finger scrolls the page; a mouse draws the part to look at.
    layout.dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
    if (points.scores.length === 1) axisY.value = "0";
    traces[0].x = points.scores[component(axisX)];
    traces[0].y = points.scores[component(axisY)];
    Object.assign(traces[0].marker, { color: points.codes.map((code) => points.colours[code]), opacity: opacities() });
    Object.assign(layout.xaxis, { title: title(axisX) });
    Object.assign(layout.yaxis, { title: title(axisY) });

    Plotly.newPlot(plot, traces, layout, options).then(() => {
      plot.on("plotly_hover", ({ points: [hit], event }) => show(hit.pointIndex, event.clientX, event.clientY));
      plot.on("plotly_unhover", hide);
    });
    for (const axis of [axisX, axisY]) axis.addEventListener("change", move);
    highlight?.addEventListener("change", () => {
      current = null;
      Plotly.restyle(plot, { "marker.opacity": [opacities()] });
    });
    document.getElementById("reset").addEventListener("click", () => {
      Plotly.relayout(plot, { "xaxis.autorange": true, "yaxis.autorange": true });
    });
    frame.addEventListener("keydown", step);
    frame.addEventListener("blur", hide);

    function opacities() {
      const chosen = Number(highlight?.value ?? -1);
      return points.codes.map((code) => (chosen < 0 ? 0.75 : code === chosen ? 1 : 0.06));
    }

    function move() {
      current = null;
      hide();
      Plotly.update(
        plot,
        { x: [points.scores[component(axisX)]], y: [points.scores[component(axisY)]] },
        { "xaxis.title": title(axisX), "yaxis.title": title(axisY), "xaxis.autorange": true, "yaxis.autorange": true },
      );
    }

    // From left to right, within the class that is highlighted.
    function step(event) {
      const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!by) return;
      event.preventDefault();
      const chosen = Number(highlight?.value ?? -1);
      const across = points.scores[component(axisX)];
      const order = [...across.keys()].filter((row) => chosen < 0 || points.codes[row] === chosen);
      order.sort((one, other) => across[one] - across[other] || one - other);
      const place = order.indexOf(current);
      current = order[(place < 0 ? 0 : place + by + order.length) % order.length];
      const box = plot.getBoundingClientRect();
      const { xaxis, yaxis } = plot._fullLayout;
      const up = points.scores[component(axisY)][current];
      show(current, box.left + xaxis._offset + xaxis.d2p(across[current]), box.top + yaxis._offset + yaxis.d2p(up));
    }

    // Names are set as text: they come from folders, and a folder can have any name.
    function show(row, x, y) {
      const tip = document.getElementById("tip");
      const [picture, label, path] = ["img", "b", "span"].map((tag) => tip.querySelector(tag));
      picture.hidden = !points.pictures[row];
      if (points.pictures[row]) picture.src = points.pictures[row];
      label.textContent = points.classes[points.codes[row]] || (highlight ? data.unlabelled : "");
      path.textContent = points.paths[row];
      tip.dataset.row = row;
      tip.hidden = false;
      const { width, height } = tip.getBoundingClientRect();
      tip.style.left = `${Math.max(8, Math.min(x + 16, innerWidth - width - 8))}px`;
      tip.style.top = `${y + 16 + height > innerHeight ? Math.max(8, y - height - 12) : y + 16}px`;
    }

    function hide() {
      document.getElementById("tip").hidden = true;
    }
  }
}
