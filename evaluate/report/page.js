"use strict";
// Views of a report. Everything that comes from data is set as text, never as markup. The whole state is in the
// address after "#", so a view can be shared by its address.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  const LISTED = 200;
  const MOST_POINTS = 4000;
  const SHOW = {
    all: "all shoppers",
    hits: `hits in the first ${data.first}`,
    misses: `misses (below ${data.first})`,
    unread: "answers not readable",
    unresolved: "unresolved",
  };
  const WITH_PROTOCOL = ["accuracy", "slices", "failures", "cost", "shoppers", "versus"];
  const DEFAULTS = {
    tab: document.querySelector("[role=tab]").dataset.tab, protocol: "0", ranker: "", show: "all", length: "", q: "", user: "", a: "", b: "", cell: "", sort: "",
  };

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
  /** Plotly reads a small HTML in its texts. */
  const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // --- state

  let state = read();

  function read() {
    const found = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    const next = { ...DEFAULTS };
    for (const name of Object.keys(DEFAULTS)) if (name in found) next[name] = found[name];
    if (!document.getElementById(`tab-${next.tab}`)) next.tab = DEFAULTS.tab;
    if (!Object.hasOwn(data.protocols, next.protocol)) next.protocol = DEFAULTS.protocol;
    if (!Object.hasOwn(SHOW, next.show)) next.show = DEFAULTS.show;
    return next;
  }

  function address() {
    const changed = Object.entries(state).filter(([name, value]) => value !== DEFAULTS[name]);
    return `#${new URLSearchParams(changed)}`;
  }

  /** Change the view. Typing replaces the entry in the browser's history, all else adds one. */
  function go(changes, replace = false) {
    state = { ...state, ...changes };
    history[replace ? "replaceState" : "pushState"](null, "", address());
    render();
  }

  const protocol = () => data.protocols[state.protocol];
  const runNamed = (label) => protocol().runs.find((run) => run.label === label);

  function rank(run, user) {
    return typeof run.ranks === "string" ? DIGITS.indexOf(run.ranks[user]) : run.ranks[user];
  }

  function unread(run) {
    run.unreadSet ??= new Set(run.unread);
    return run.unreadSet;
  }

  function outcome(run, user) {
    const place = rank(run, user);
    if (!place) return user < run.asked ? "unresolved" : "unasked";
    if (unread(run).has(user)) return "unread";
    return place <= data.first ? "hits" : "misses";
  }

  // --- tabs, protocol, plots, sorting

  function render() {
    for (const tab of findAll("[role=tab]")) {
      const chosen = tab.dataset.tab === state.tab;
      tab.setAttribute("aria-selected", chosen);
      tab.tabIndex = chosen ? 0 : -1;
      if (chosen) showTab(tab);
    }
    for (const panel of findAll(".panel")) panel.hidden = panel.id !== `tab-${state.tab}`;
    find(".which").hidden = !WITH_PROTOCOL.includes(state.tab);
    find("#protocol").value = state.protocol;
    for (const part of findAll(".of-protocol")) part.hidden = part.dataset.protocol !== state.protocol;
    if (state.tab === "shoppers") renderShoppers();
    if (state.tab === "versus") renderVersus();
    applySort();
    for (const plot of findAll(".plot[data-figure]", find(`#tab-${state.tab}`))) {
      if (plot.offsetParent && !plot.dataset.drawn) draw(plot, data.figures[plot.dataset.figure]);
    }
  }

  /** Bring the chosen tab into the bar where the bar is too narrow for all; the page itself must not move. */
  function showTab(tab) {
    const bar = tab.parentElement;
    const left = tab.offsetLeft - bar.offsetLeft;
    if (left < bar.scrollLeft) bar.scrollLeft = left;
    if (left + tab.offsetWidth > bar.scrollLeft + bar.clientWidth) bar.scrollLeft = left + tab.offsetWidth - bar.clientWidth;
  }

  function themed(layout) {
    const axis = { gridcolor: colour("--grid"), linecolor: colour("--line"), zerolinecolor: colour("--line") };
    const narrow = innerWidth < 820;
    const out = {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: narrow ? 11 : 13, color: colour("--text") },
      hoverlabel: { bgcolor: colour("--raised"), bordercolor: colour("--line"), font: { color: colour("--text") } },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    };
    for (const name of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
      out[name] = { ...axis, ...layout[name], fixedrange: true };
    }
    return out;
  }

  function draw(plot, figure, onClick) {
    plot.dataset.drawn = "yes";
    plot.redraw = () => draw(plot, figure, onClick);
    const done = Plotly.react(plot, figure.data, themed(figure.layout), { displayModeBar: false, responsive: true });
    if (onClick && !plot.listens) {
      plot.listens = true;
      done.then(() => plot.on("plotly_click", (event) => onClick(event.points[0].customdata)));
    }
  }

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
        if (x === null || y === null) return (x === null) - (y === null); // what has no figure stays below
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
    const column = head.cellIndex;
    const words = head.classList.contains("words");
    const now = head.getAttribute("aria-sort");
    const descending = now ? now === "ascending" : !words;
    go({ sort: `${table.dataset.name}.${descending ? "-" : ""}${column + 1}` }, true);
  }

  // --- shoppers

  function choice(name, label, options, chosen, onChange) {
    const select = el("select", { id: name, change: (event) => onChange(event.target.value) });
    for (const [value, text] of options) select.append(el("option", { value }, text));
    select.value = chosen;
    return el("label", {}, label, select);
  }

  /** Build controls only where they differ from what is there, so that nobody loses the focus while typing. */
  function controls(root, key, build) {
    if (root.dataset.key === key) return;
    root.dataset.key = key;
    root.replaceChildren(...build());
  }

  function renderShoppers() {
    const root = find("#shoppers");
    const { runs } = protocol();
    if (!runs.length) return root.replaceChildren(el("p", {}, "Nobody was ranked here."));
    const run = runNamed(state.ranker) ?? runs.find((each) => each.speaks) ?? runs[0];
    controls(root, state.protocol, () => [
      el("h2", {}, protocol().name),
      el("p", { class: "caption" }, drilldownNote()),
      el("div", { class: "controls" },
        choice("ranker", "ranker", runs.map((each) => [each.label, each.label]), "", (ranker) => go({ ranker, user: "" })),
        choice("show", "show", Object.entries(SHOW), "", (show) => go({ show, user: "" })),
        choice("length", "purchases in the history", [["", "any number"], ...data.lengths.map(([name]) => [name, name])], "",
          (length) => go({ length, user: "" })),
        el("label", {}, "pseudonym or user id",
          el("input", { id: "q", type: "search", autocomplete: "off", input: (event) => go({ q: event.target.value.trim(), user: "" }, true) })),
      ),
      el("div", { class: "browse" }, el("div", { class: "list", id: "users" }), el("div", { id: "shopper" })),
    ]);
    find("#ranker").value = run.label;
    find("#show").value = state.show;
    find("#length").value = state.length;
    if (find("#q") !== document.activeElement) find("#q").value = state.q;
    listUsers(run);
  }

  const drilldownNote = () =>
    "One run of each ranker, of its first draw and seed; the tables average over all. Ranks are there for all users, " +
    "whole rows (lists, scores, profiles, reasons) for the first users only, to keep the file small.";

  async function listUsers(run) {
    const wanted = await pseudonymOf(state.q);
    const found = protocol().users.flatMap((name, user) => (keeps(run, user, name, wanted) ? [user] : []));
    const detailed = found.filter((user) => run.rows[user]);
    const others = found.filter((user) => !run.rows[user]);
    const ordered = [...detailed, ...others];
    const chosen = ordered.find((user) => protocol().users[user] === state.user) ?? ordered[0];
    const more = ordered.length > LISTED ? `, the first ${LISTED} listed` : "";
    find("#users").replaceChildren(
      el("p", { id: "found" }, `${plural(found.length, "shopper")} of ${run.asked.toLocaleString("en")}${more}`),
      ...ordered.slice(0, LISTED).map((user) => userButton(user, `rank ${rank(run, user) || "–"}`, user === chosen, !run.rows[user])),
    );
    find("#shopper").replaceChildren(...(chosen === undefined ? [el("p", {}, "Nobody fits these choices.")] : shopper(chosen, [run])));
  }

  function keeps(run, user, name, wanted) {
    if (outcome(run, user) === "unasked") return false;
    if (state.show !== "all" && outcome(run, user) !== state.show) return false;
    const slice = data.lengths.find(([length]) => length === state.length);
    const length = protocol().lengths[user];
    if (slice && (length < slice[1] || (slice[2] !== null && length > slice[2]))) return false;
    return !state.q || name.startsWith(state.q) || name.startsWith(`u-${state.q}`) || name === wanted;
  }

  /** Ids are not in this file; one that is typed in is hashed here to find its pseudonym. */
  async function pseudonymOf(id) {
    if (!id || !globalThis.crypto?.subtle) return "";
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(id)));
    const text = [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    return `u-${text.slice(0, data.pseudonym_digits)}`;
  }

  function userButton(user, said, current, brief) {
    const name = protocol().users[user];
    const length = protocol().lengths[user];
    return el("button", { "data-user": name, "aria-current": current ? "true" : null, click: () => go({ user: name }) },
      el("span", { class: "who" }, name),
      el("span", { class: "more" }, `${plural(length, "purchase")} · ${said}${brief ? " · rank only" : ""}`));
  }

  /** A shopper as one or two rankers see them. */
  function shopper(user, runs) {
    const list = runs.map((run) => run.rows[user] && protocol().lists[run.draw]?.[user]).find(Boolean);
    const history = list ? historyOf(list) : null;
    return [
      el("h3", { class: "who", id: "who" }, protocol().users[user]),
      ...(list ? factsOf(list) : []),
      ...(list
        ? [el("h4", {}, "History, oldest first"), list.earlier ? el("p", { class: "facts" }, `${plural(list.earlier, "earlier purchase")} not listed here`) : "", history]
        : []),
      el("div", { class: runs.length > 1 ? "sides" : "" }, runs.map((run) => el("div", { class: "side" }, ...opinion(user, run, history)))),
    ].filter((part) => part !== "");
  }

  function factsOf(list) {
    const known = Object.entries(list.metadata).map(([name, value]) => `${name}: ${value}`).join(" · ");
    return known ? [el("p", { class: "facts" }, known)] : [];
  }

  function itemText(number) {
    const [title, category] = protocol().items[number];
    return [el("span", { class: "title" }, title), category ? el("span", { class: "category" }, ` ${category}`) : ""];
  }

  function historyOf(list) {
    const entries = list.history.map(([item, rating], i) => {
      const number = i - list.unshown + 1; // as the model counted: from the first purchase it was shown
      return el("li", { value: list.earlier + i + 1, "data-shown": number > 0 ? number : null, class: number > 0 ? null : "unshown",
        title: number > 0 ? null : "too far back: a language model is not shown this purchase" },
        itemText(item), rating === null ? "" : el("span", { class: "stars" }, ` rated ${rating} of 5`));
    });
    return el("ol", { class: "history" }, entries);
  }

  function opinion(user, run, history) {
    const place = rank(run, user);
    const row = run.rows[user];
    const verdict = {
      hits: el("span", { class: "badge good" }, `hit in the first ${data.first}`),
      misses: el("span", { class: "badge bad" }, "miss"),
      unread: el("span", { class: "badge bad" }, "answers not readable: ranked by what is left"),
      unresolved: el("span", { class: "badge" }, "unresolved: no result, and no miss"),
      unasked: el("span", { class: "badge" }, "not among the shoppers this ranker was to rank"),
    }[outcome(run, user)];
    const head = [
      el("h4", {}, run.label, run.seed === null ? "" : ` (seed ${run.seed})`),
      el("p", { class: "facts" }, place ? `held-out item at rank ${place} of ${protocol().size} ` : "", verdict),
    ];
    if (!row) return [...head, el("p", { class: "facts" }, "This file holds only the rank of this shopper for this ranker.")];
    const list = protocol().lists[run.draw][user];
    return [...head, ...troubles(row), ...profileOf(row, list, history), candidatesOf(run, row, list)];
  }

  function troubles(row) {
    const said = [];
    if (row.error) said.push(row.error);
    if (row.unparsable) said.push(`${plural(row.unparsable, "answer")} could not be parsed`);
    if (row.appended) said.push(`${plural(row.appended, "candidate")} left out by the model, put below the others`);
    if (row.dropped) said.push(`${plural(row.dropped, "label")} written by the model that ${row.dropped === 1 ? "names" : "name"} no candidate or came twice`);
    if (row.score_source) said.push(`MAR’s scores come from: ${row.score_source}`);
    return said.length ? [el("p", { class: "facts" }, said.join(" · "))] : [];
  }

  function profileOf(row, list, history) {
    if (!row.profile) return [];
    const light = (evidence, on) => {
      for (const number of evidence) find(`[data-shown="${number}"]`, history)?.classList.toggle("lit", on);
    };
    const motivations = row.profile.map(([dimension, strength, description, evidence]) => {
      const titles = evidence.map((number) => {
        const entry = list.history[list.unshown + number - 1];
        return entry ? `${list.earlier + list.unshown + number}. ${protocol().items[entry[0]][0]}` : `purchase ${number}`;
      });
      return el("li", { tabindex: "0", mouseenter: () => light(evidence, true), mouseleave: () => light(evidence, false),
        focus: () => light(evidence, true), blur: () => light(evidence, false) },
        el("b", {}, dimension), ` (${strength}): ${description}`,
        el("div", { class: "category" }, `rests on ${titles.join("; ")}`));
    });
    return [el("h4", {}, "Motivation profile, with the purchases it rests on"), el("ul", { class: "profile" }, motivations)];
  }

  const NAMES = { prior: "prior", mar: "MAR", fused: "fused" };

  function candidatesOf(run, row, list) {
    const components = Object.keys(row.scores);
    const order = row.order.length ? row.order : list.candidates.map((_, i) => i);
    const reasons = new Map((row.reasons ?? []).map(([place, ...rest]) => [place, rest]));
    const lines = order.map((candidate, i) => {
      const phrases = row.traits && row.traits[candidate] >= 0 ? run.traits[row.traits[candidate]] : [];
      const cell = el("td", { class: "words" }, itemText(list.candidates[candidate]),
        candidate === list.target ? el("span", { class: "badge" }, "held out") : "",
        phrases.length ? el("div", { class: "traits" }, `traits: ${phrases.join("; ")}`) : "");
      if (reasons.has(candidate)) cell.append(reasonOf(reasons.get(candidate)));
      return el("tr", { class: candidate === list.target ? "target" : null },
        el("td", {}, row.order.length ? String(i + 1) : "–"), cell,
        components.map((name) => el("td", {}, score(row.scores[name][candidate]))));
    });
    return el("div", { class: "scroll" }, el("table", { class: "candidates" },
      el("thead", {}, el("tr", {}, el("th", {}, "rank"), el("th", { class: "words" }, "candidate"),
        components.map((name) => el("th", {}, NAMES[name] ?? name)))),
      el("tbody", {}, lines)));
  }

  const score = (value) => value === null || value === undefined ? "–" : value.toFixed(Math.abs(value) >= 100 ? 0 : 2).replace("-", "−");

  function reasonOf([text, faithful, why]) {
    if (why === data.unchecked) return el("div", { class: "reason" }, text || "(no reason given)", " ", el("span", { class: "badge" }, why));
    const verdict = el("span", { class: `badge ${faithful ? "good" : "bad"}` }, faithful ? "re-check: faithful" : "re-check: not faithful");
    return el("div", { class: "reason" }, text || "(no reason given)", " ", verdict, why ? el("div", { class: "category" }, why) : "");
  }

  // --- A against B

  function renderVersus() {
    const root = find("#versus");
    const { runs } = protocol();
    if (runs.length < 2) return root.replaceChildren(el("p", {}, "It takes two rankers."));
    const speaking = runs.find((run) => run.speaks && run.label !== data.reference);
    const a = runNamed(state.a) ?? speaking ?? runs.find((run) => run.label !== data.reference);
    const b = runNamed(state.b) ?? runs.find((run) => run.label === data.reference && run !== a) ?? runs.find((run) => run !== a);
    const options = runs.map((run) => [run.label, run.label]);
    controls(root, state.protocol, () => [
      el("h2", {}, protocol().name),
      el("p", { class: "caption" }, `Where two rankers differ on the same lists. ${drilldownNote()}`),
      el("div", { class: "controls" },
        choice("a", "A", options, "", (label) => go({ a: label, user: "", cell: "" })),
        choice("b", "B", options, "", (label) => go({ b: label, user: "", cell: "" })),
        el("label", {}, "\u00a0", el("button", { id: "swap", click: swap }, "swap A and B"))),
      el("div", { id: "compared" }),
    ]);
    find("#a").value = a.label;
    find("#b").value = b.label;
    if (a.draw !== b.draw) return find("#compared").replaceChildren(el("p", {}, "These two ranked different lists (other draws): compare them in the tables."));
    compare(a, b);
  }

  function swap() {
    go({ a: find("#b").value, b: find("#a").value, cell: state.cell.split("-").reverse().join("-") });
  }

  function compare(a, b) {
    const root = find("#compared");
    const ranks = protocol().users.map((_, user) => [rank(a, user), rank(b, user)]);
    const both = ranks.flatMap(([x, y], user) => (x && y ? [user] : []));
    const hit = (value) => value <= data.first;
    const sides = {
      onlyA: both.filter((user) => hit(ranks[user][0]) && !hit(ranks[user][1])),
      onlyB: both.filter((user) => !hit(ranks[user][0]) && hit(ranks[user][1])),
    };
    const hits = both.filter((user) => hit(ranks[user][0]) && hit(ranks[user][1])).length;
    const neither = both.length - hits - sides.onlyA.length - sides.onlyB.length;
    const key = [state.protocol, a.label, b.label].join("\u001f");
    if (root.dataset.key !== key) {
      root.dataset.key = key;
      root.replaceChildren(
        el("div", { class: "top" },
          el("div", {}, countsOf(a, b, hits, sides, neither, ranks.length - both.length), el("div", { class: "sides", id: "differ" })),
          el("figure", {}, el("div", { class: "plot", id: "scatter", style: "height:430px" }),
            el("figcaption", {}, "Ranks of the held-out item; larger circles are more shoppers. Above the diagonal A ranks it higher. A click lists the shoppers of a circle and opens the first."))),
        el("div", { id: "pair" }));
      scatter(a, b, ranks, both);
    }
    const cell = /^(\d+)-(\d+)$/.exec(state.cell);
    const inCell = cell ? both.filter((user) => ranks[user][0] === Number(cell[1]) && ranks[user][1] === Number(cell[2])) : [];
    const listed = { [`A hits, B misses`]: sides.onlyA, [`B hits, A misses`]: sides.onlyB };
    if (cell) listed[`A at rank ${cell[1]}, B at rank ${cell[2]}`] = inCell;
    const first = [...inCell, ...sides.onlyA, ...sides.onlyB];
    const chosen = both.find((user) => protocol().users[user] === state.user) ?? first.find((user) => a.rows[user] && b.rows[user]) ?? first[0];
    find("#differ").replaceChildren(...Object.entries(listed).map(([title, users]) => differing(title, users, ranks, a, b, chosen)));
    find("#pair").replaceChildren(...(chosen === undefined ? [el("p", {}, "No shopper is a hit for one and a miss for the other.")] : shopper(chosen, [a, b])));
  }

  function countsOf(a, b, hits, sides, neither, unresolved) {
    return el("div", {}, el("table", { class: "counts", id: "counts" },
      el("thead", {}, el("tr", {}, el("th", {}, `first ${data.first}`), el("th", {}, "B hits"), el("th", {}, "B misses"))),
      el("tbody", {},
        el("tr", {}, el("th", {}, "A hits"), el("td", {}, String(hits)), el("td", {}, String(sides.onlyA.length))),
        el("tr", {}, el("th", {}, "A misses"), el("td", {}, String(sides.onlyB.length)), el("td", {}, String(neither))))),
      el("p", { class: "caption" }, `A is ${a.label}, B is ${b.label}. ${unresolved ? `${plural(unresolved, "shopper")} without a rank by one of them left out.` : ""}`));
  }

  function differing(title, users, ranks, a, b, chosen) {
    const whole = (user) => a.rows[user] && b.rows[user];
    const ordered = [...users.filter(whole), ...users.filter((user) => !whole(user))];
    return el("div", { class: "list", "data-list": title },
      el("p", {}, `${title}: ${plural(users.length, "shopper")}${users.length > LISTED ? `, the first ${LISTED} listed` : ""}`),
      ...ordered.slice(0, LISTED).map((user) => userButton(user, `${ranks[user][0]} against ${ranks[user][1]}`, user === chosen, !whole(user))));
  }

  function scatter(a, b, ranks, both) {
    const cells = new Map();
    for (const user of both.slice(0, MOST_POINTS)) {
      const key = ranks[user].join("-");
      cells.set(key, (cells.get(key) ?? 0) + 1);
    }
    const keys = [...cells.keys()];
    const points = keys.map((key) => key.split("-").map(Number));
    const counts = keys.map((key) => cells.get(key));
    const most = Math.max(...counts, 1);
    const size = protocol().size;
    const long = size > 200;
    const range = long ? [0, Math.log10(size)] : [0, size + 1];
    const axis = (title) => ({ title: { text: plain(title) }, type: long ? "log" : "linear", range, zeroline: false });
    draw(find("#scatter"), {
      data: [
        { x: [1, size], y: [1, size], mode: "lines", line: { color: "#888888", dash: "dash", width: 1 }, hoverinfo: "skip", showlegend: false },
        {
          x: points.map(([x]) => x), y: points.map(([, y]) => y), customdata: keys, mode: "markers", showlegend: false,
          marker: { size: counts.map((n) => Math.max(6, Math.min(9, 30 / Math.sqrt(most)) * Math.sqrt(n))), color: data.looks[a.label]?.color ?? "#0072b2", opacity: 0.75, line: { width: 1, color: colour("--ground") } },
          text: counts.map((n) => plural(n, "shopper")), hovertemplate: "A %{x}, B %{y}: %{text}<extra></extra>",
        },
      ],
      layout: { xaxis: axis(`rank by A, ${a.label}`), yaxis: axis(`rank by B, ${b.label}`), margin: { l: 55, r: 15, t: 10, b: 45 }, height: 430 },
    }, (cell) => cell && go({ cell, user: "" }));
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
  find("#protocol").addEventListener("change", (event) => go({ protocol: event.target.value, user: "", cell: "" }));
  find("main").addEventListener("click", clickedHead);
  for (const name of ["popstate", "hashchange"]) addEventListener(name, () => { state = read(); render(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => findAll(".plot").forEach((plot) => plot.redraw?.()));
  render();
  document.documentElement.dataset.ready = "yes";
})();
