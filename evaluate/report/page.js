"use strict";
// A report page: tabs, plots with legends, sortable tables. Texts from data are always set as text, never as markup.
// The whole state is in the address after "#", so a view can be shared by its address.
const report = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const NARROW = 820; // as in page.css
  const GAP = 3; // between a point and its label
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // --- small helpers

  const find = (selector, root = document) => root.querySelector(selector);
  const findAll = (selector, root = document) => [...root.querySelectorAll(selector)];

  /** An element; attributes by name, handlers as functions, children as text or elements. */
  function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") node.addEventListener(name, value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
    return node;
  }

  const plural = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
  /** Plotly interprets some HTML in its texts, so names are escaped for plotly and unescaped for a legend. */
  const escaped = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const unescaped = (text) => text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // --- state

  const defaults = { tab: find("[role=tab]").dataset.tab, protocol: "0", sort: "" };
  const ofProtocol = {};
  const views = {};
  let state = defaults;

  /** Register an interactive part: the function that fills it, and its state in the address; some of the state belongs to one protocol. */
  function view(name, render, kept, ending) {
    views[name] = render;
    Object.assign(defaults, kept, ending);
    Object.assign(ofProtocol, ending);
  }

  function read() {
    const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    const next = { ...defaults };
    for (const name of Object.keys(defaults)) if (name in given) next[name] = given[name];
    if (!document.getElementById(`tab-${next.tab}`)) next.tab = defaults.tab;
    if (![...find("#protocol").options].some((option) => option.value === next.protocol)) next.protocol = defaults.protocol;
    return next;
  }

  function address() {
    const changed = Object.entries(state).filter(([name, value]) => value !== defaults[name]);
    return `#${new URLSearchParams(changed)}`;
  }

  /** Change the view. Typing replaces the entry in the browser's history; other changes add one. */
  function go(changes, replace = false) {
    state = { ...state, ...changes };
    history[replace ? "replaceState" : "pushState"](null, "", address());
    render();
  }

  function render() {
    for (const tab of findAll("[role=tab]")) {
      const chosen = tab.dataset.tab === state.tab;
      tab.setAttribute("aria-selected", chosen);
      tab.tabIndex = chosen ? 0 : -1;
      if (chosen) scrollToTab(tab);
    }
    for (const panel of findAll(".panel")) panel.hidden = panel.id !== `tab-${state.tab}`;
    find(".which").hidden = !("perProtocol" in find(`#tab-${state.tab}`).dataset);
    find("#protocol").value = state.protocol;
    for (const part of findAll(".of-protocol")) part.hidden = part.dataset.protocol !== state.protocol;
    if (Object.hasOwn(views, state.tab)) views[state.tab]();
    applySort();
    drawVisible();
  }

  /** Scroll the bar of tabs to the chosen one, without scrolling the page. */
  function scrollToTab(tab) {
    const bar = tab.parentElement;
    const left = tab.offsetLeft - bar.offsetLeft;
    if (left < bar.scrollLeft) bar.scrollLeft = left;
    if (left + tab.offsetWidth > bar.scrollLeft + bar.clientWidth) bar.scrollLeft = left + tab.offsetWidth - bar.clientWidth;
  }

  // --- plots

  /** Draw all visible plots that are not drawn yet, or were drawn for another width or colour scheme. */
  function drawVisible() {
    for (const plot of findAll(`#tab-${state.tab} .plot`)) {
      if (!plot.offsetParent || plot.dataset.drawnFor === look(plot)) continue;
      const json = plot.parentElement.querySelector("script.plotted");
      if (plot.redraw) plot.redraw();
      else if (json) draw(plot, JSON.parse(json.textContent));
    }
  }

  const look = (plot) => `${plot.clientWidth} ${dark.matches}`;

  function themed(layout) {
    const axis = {
      gridcolor: colour("--grid"), linecolor: colour("--line"), zerolinecolor: colour("--line"),
      automargin: true, fixedrange: true, autotickangles: [0, 90],
    };
    const out = {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: innerWidth < NARROW ? 11 : 13, color: colour("--text") },
      hoverlabel: { bgcolor: colour("--raised"), bordercolor: colour("--line"), font: { color: colour("--text") } },
      showlegend: false,
    };
    for (const name of ["xaxis", "yaxis"]) out[name] = { ...axis, ...layout[name] };
    return out;
  }

  async function draw(plot, figure, onClick) {
    plot.dataset.drawnFor = look(plot);
    plot.redraw = () => draw(plot, figure, onClick);
    if (!plot.previousElementSibling?.matches(".legend")) plot.before(...legendOf(plot, figure.data));
    const visible = (plot.data ?? []).map((trace) => trace.visible ?? true);
    const traces = figure.data.map((trace, i) => ({ ...trace, visible: visible[i] ?? true }));
    await Plotly.react(plot, traces, { ...themed(figure.layout), width: plot.clientWidth }, { displayModeBar: false });
    if (onClick && !plot.listens) {
      plot.listens = true;
      plot.on("plotly_click", (event) => onClick(event.points[0].customdata));
    }
    await placeLabels(plot, figure.data);
    plot.dataset.done = "yes";
  }

  /** The legend as text above the plot, so that it wraps and covers nothing. A click hides a trace. */
  function legendOf(plot, traces) {
    const named = traces.flatMap((trace, i) => (trace.name && trace.showlegend !== false ? [[trace, i]] : []));
    if (named.length < 2) return [];
    const toggle = (event, i) => {
      const shown = event.currentTarget.getAttribute("aria-pressed") !== "true";
      event.currentTarget.setAttribute("aria-pressed", shown);
      Plotly.restyle(plot, { visible: shown }, [i]);
    };
    const entries = named.map(([trace, i]) =>
      el("button", { "aria-pressed": "true", title: "hide or show", click: (event) => toggle(event, i) }, swatch(trace), unescaped(trace.name)));
    return [el("div", { class: "legend" }, entries)];
  }

  function swatch(trace) {
    const first = (value) => (Array.isArray(value) ? value[0] : value);
    const line = trace.mode?.startsWith("lines") && trace.line?.color;
    const node = el("i", { class: line ? `line ${trace.line.dash ?? ""}` : `point ${trace.type === "bar" ? "square" : first(trace.marker?.symbol) ?? ""}`, "aria-hidden": "true" });
    node.style.color = first(line ? trace.line.color : trace.marker?.color);
    return node;
  }

  /** Put each point's label on a side where it covers no point or other label; leave it out if there is no such side. */
  async function placeLabels(plot, traces) {
    const groups = findAll(".scatterlayer .trace", plot); // one for each scatter trace that is shown, in order
    const drawn = traces.flatMap((trace, i) => (trace.type === "scatter" && (plot.data[i].visible ?? true) ? [{ trace, i }] : []));
    const labelled = [];
    const taken = [];
    for (const [at, { trace, i }] of drawn.entries()) {
      const points = findAll(".point", groups[at]).map((point) => point.getBoundingClientRect());
      if (!trace.marker?.symbol?.endsWith?.("-open")) taken.push(...points);
      if (trace.mode?.includes("text")) labelled.push({ i, text: trace.text, points, labels: findAll(".textpoint", groups[at]) });
    }
    const area = find(".nsewdrag", plot)?.getBoundingClientRect();
    for (const { i, text, points, labels } of labelled.reverse()) { // what is drawn on top first
      const sides = labels.map((label, n) => freeSide(label.getBoundingClientRect(), points[n], taken, area));
      await Plotly.restyle(plot, {
        text: [sides.map((side, n) => (side ? text[n] : ""))],
        textposition: [sides.map((side) => side ?? "middle right")],
      }, [i]);
    }
  }

  /** The first side of a point with room for a label; the room is then taken. */
  function freeSide({ width, height }, point, taken, area) {
    const [x, y] = [(point.left + point.right) / 2, (point.top + point.bottom) / 2];
    const corners = {
      "middle right": [point.right + GAP, y - height / 2],
      "middle left": [point.left - GAP - width, y - height / 2],
      "top center": [x - width / 2, point.top - GAP - height],
      "bottom center": [x - width / 2, point.bottom + GAP],
      "top right": [point.right, point.top - GAP - height],
      "bottom right": [point.right, point.bottom + GAP],
      "top left": [point.left - width, point.top - GAP - height],
      "bottom left": [point.left - width, point.bottom + GAP],
    };
    for (const [side, [left, top]] of Object.entries(corners)) {
      const box = { left, top, right: left + width, bottom: top + height };
      const inside = box.left >= area.left && box.right <= area.right && box.top >= area.top && box.bottom <= area.bottom;
      if (!inside || taken.some((other) => other !== point && near(box, other))) continue;
      taken.push(box);
      return side;
    }
    return null;
  }

  /** Whether two boxes are closer than a gap; plotly rounds the positions of labels by up to this gap. */
  const near = (a, b) => a.left < b.right + GAP && b.left < a.right + GAP && a.top < b.bottom + GAP && b.top < a.bottom + GAP;

  // --- sorting

  /** The rows of a table in groups: a part belongs to the row above it and moves with it. */
  function groupsOf(body) {
    body.originalRows ??= [...body.rows];
    const groups = [];
    for (const row of body.originalRows) {
      if (row.classList.contains("part") && groups.length) groups.at(-1).push(row);
      else groups.push([row]);
    }
    return groups;
  }

  function sortBy(table, column, descending) {
    const body = table.tBodies[0];
    const value = ([row]) => {
      const cell = row.cells[column];
      return "value" in cell.dataset ? Number(cell.dataset.value) : null;
    };
    const groups = groupsOf(body);
    if (column >= 0) {
      const numeric = groups.some((group) => value(group) !== null);
      groups.sort((a, b) => {
        if (!numeric) {
          const order = a[0].cells[column].textContent.localeCompare(b[0].cells[column].textContent, "en");
          return descending ? -order : order;
        }
        const [x, y] = [value(a), value(b)];
        if (x === null || y === null) return (x === null) - (y === null); // cells without a number stay below
        return descending ? y - x : x - y;
      });
    }
    body.append(...groups.flat());
    findAll("th", table).forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }

  /** `sort` in the address is "table.column" or "table.-column", columns from 1. */
  function applySort() {
    const [, name, minus, column] = /^(.*)\.(-?)(\d+)$/.exec(state.sort) ?? [];
    for (const table of findAll("main table[data-name]")) {
      const mine = table.dataset.name === name && column <= table.tHead.rows[0].cells.length && column > 0;
      if (mine) sortBy(table, column - 1, minus === "-");
      else if (table.tBodies[0].originalRows) sortBy(table, -1, false);
    }
  }

  function clickedHead(event) {
    const button = event.target.closest("th button");
    const table = button?.closest("table[data-name]");
    if (!table) return;
    const head = button.closest("th");
    const now = head.getAttribute("aria-sort");
    const descending = now ? now === "ascending" : head.classList.contains("figure");
    go({ sort: `${table.dataset.name}.${descending ? "-" : ""}${head.cellIndex + 1}` }, true);
  }

  // --- start

  find("[role=tablist]").addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) { go({ tab: tab.dataset.tab }); scrollTo(0, Math.min(scrollY, find("nav").offsetTop)); }
  });
  find("[role=tablist]").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const tabs = findAll("[role=tab]");
    const next = tabs[(tabs.findIndex((tab) => tab.dataset.tab === state.tab) + step + tabs.length) % tabs.length];
    go({ tab: next.dataset.tab });
    next.focus();
  });
  find("#protocol").addEventListener("change", (event) => go({ ...ofProtocol, protocol: event.target.value }));
  find("main").addEventListener("click", clickedHead);
  for (const name of ["popstate", "hashchange"]) addEventListener(name, () => { state = read(); render(); });
  dark.addEventListener("change", drawVisible);
  let resizing;
  addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(drawVisible, 150); });
  // After the scripts below this one have registered their views.
  addEventListener("DOMContentLoaded", () => {
    state = read();
    render();
    document.documentElement.dataset.ready = "yes";
  });

  return { data, el, find, findAll, plural, escaped, colour, draw, go, view, get state() { return state; } };
})();
