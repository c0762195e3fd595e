"use strict";
// The views of a study's page: single users, and a comparison of two rankers.
(() => {
  const { data, el, find, findAll, plural, escaped, colour, draw, go, view } = report;
  const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  const LISTED = 200;
  const SHOW = {
    all: "all users",
    hits: `hits in the first ${data.first}`,
    misses: `misses (below ${data.first})`,
    unparsable: "unparsable answers",
    unresolved: "unresolved",
  };

  const state = () => report.state;
  const shown = () => (Object.hasOwn(SHOW, state().show) ? state().show : "all");
  const protocol = () => data.protocols[state().protocol];
  const runNamed = (label) => protocol().runs.find((run) => run.label === label);

  function rank(run, user) {
    return typeof run.ranks === "string" ? DIGITS.indexOf(run.ranks[user]) : run.ranks[user];
  }

  function unparsable(run) {
    run.unparsableSet ??= new Set(run.unparsable);
    return run.unparsableSet;
  }

  function outcome(run, user) {
    const found = rank(run, user);
    if (!found) return user < run.asked ? "unresolved" : "unasked";
    if (unparsable(run).has(user)) return "unparsable";
    return found <= data.first ? "hits" : "misses";
  }

  // --- users

  function choice(name, label, options, chosen, onChange) {
    const select = el("select", { id: name, change: (event) => onChange(event.target.value) });
    for (const [value, text] of options) select.append(el("option", { value }, text));
    select.value = chosen;
    return el("label", {}, label, select);
  }

  /** Build controls again only if they changed, so that the reader keeps the focus while typing. */
  function controls(root, key, build) {
    if (root.dataset.key === key) return;
    root.dataset.key = key;
    root.replaceChildren(...build());
  }

  /** A sentence in place of what was built, so that it is built again when it is wanted next. */
  function instead(root, text) {
    delete root.dataset.key;
    root.replaceChildren(el("p", {}, text));
  }

  function renderUsers() {
    const root = find("#users");
    const { runs } = protocol();
    if (!runs.length) return instead(root, "No user was ranked here.");
    const run = runNamed(state().ranker) ?? runs.find((each) => each.uses_lm) ?? runs[0];
    controls(root, state().protocol, () => [
      el("h2", {}, protocol().name),
      el("p", { class: "caption" }, drilldownNote()),
      el("div", { class: "controls" },
        choice("ranker", "ranker", runs.map((each) => [each.label, each.label]), "", (ranker) => go({ ranker, user: "" })),
        choice("show", "show", Object.entries(SHOW), "", (show) => go({ show, user: "" })),
        choice("length", "history length", [["", "any number"], ...data.lengths.map(([name]) => [name, name])], "",
          (length) => go({ length, user: "" })),
        el("label", {}, "pseudonym or user id",
          el("input", { id: "q", type: "search", autocomplete: "off", input: (event) => go({ q: event.target.value.trim(), user: "" }, true) })),
      ),
      el("div", { class: "browse" }, el("div", { class: "list", id: "user-list" }), el("div", { id: "user" })),
    ]);
    find("#ranker").value = run.label;
    find("#show").value = shown();
    find("#length").value = state().length;
    if (find("#q") !== document.activeElement) find("#q").value = state().q;
    listUsers(run);
  }

  const drilldownNote = () =>
    "Each ranker is shown with one run, of its first draw and seed; the tables average over all runs. All users have " +
    "ranks; only the first users have lists, scores, profiles and reasons, to keep the file small.";

  async function listUsers(run) {
    const wanted = await pseudonymOf(state().q);
    const found = protocol().users.flatMap((name, user) => (keeps(run, user, name, wanted) ? [user] : []));
    const detailed = found.filter((user) => run.rows[user]);
    const others = found.filter((user) => !run.rows[user]);
    const ordered = [...detailed, ...others];
    const chosen = ordered.find((user) => protocol().users[user] === state().user) ?? ordered[0];
    const more = ordered.length > LISTED ? `, the first ${LISTED} listed` : "";
    find("#user-list").replaceChildren(
      el("p", { id: "found" }, `${plural(found.length, "user")} of ${run.asked.toLocaleString("en")}${more}`),
      ...ordered.slice(0, LISTED).map((user) => userButton(user, `rank ${rank(run, user) || "–"}`, user === chosen, !run.rows[user])),
    );
    find("#user").replaceChildren(...(chosen === undefined ? [el("p", {}, "No user fits these choices.")] : userAsSeen(chosen, [run])));
  }

  function keeps(run, user, name, wanted) {
    if (outcome(run, user) === "unasked") return false;
    if (shown() !== "all" && outcome(run, user) !== shown()) return false;
    const slice = data.lengths.find(([length]) => length === state().length);
    const length = protocol().lengths[user];
    if (slice && (length < slice[1] || (slice[2] !== null && length > slice[2]))) return false;
    return !state().q || name.startsWith(state().q) || name.startsWith(`u-${state().q}`) || name === wanted;
  }

  /** User ids are not in this file; an id that is typed in is hashed to find its pseudonym. */
  async function pseudonymOf(id) {
    if (!id || !globalThis.crypto?.subtle) return "";
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(id)));
    const text = [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    return `u-${text.slice(0, data.pseudonym_digits)}`;
  }

  function userButton(user, detail, current, brief) {
    const name = protocol().users[user];
    const length = protocol().lengths[user];
    return el("button", { "data-user": name, "aria-current": current ? "true" : null, click: () => go({ user: name }) },
      el("span", { class: "who" }, name),
      el("span", { class: "more" }, `${plural(length, "interaction")} · ${detail}${brief ? " · rank only" : ""}`));
  }

  /** A user as one or two rankers see them. */
  function userAsSeen(user, runs) {
    const list = runs.map((run) => run.rows[user] && protocol().lists[run.draw]?.[user]).find(Boolean);
    const history = list ? historyOf(list) : null;
    return [
      el("h3", { class: "who", id: "who" }, protocol().users[user]),
      ...(list ? factsOf(list) : []),
      ...(list
        ? [el("h4", {}, "History, oldest first"), list.earlier ? el("p", { class: "facts" }, `${plural(list.earlier, "earlier interaction")} not listed here`) : "", history]
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
      const number = i - list.unshown + 1; // as the model counted: from the first interaction it was shown
      return el("li", { value: list.earlier + i + 1, "data-shown": number > 0 ? number : null, class: number > 0 ? null : "unshown",
        title: number > 0 ? null : "too old: not shown to a language model" },
        itemText(item), rating === null ? "" : el("span", { class: "stars" }, ` rated ${rating} of 5`));
    });
    return el("ol", { class: "history" }, entries);
  }

  function opinion(user, run, history) {
    const found = rank(run, user);
    const row = run.rows[user];
    const verdict = {
      hits: el("span", { class: "badge good" }, `hit in the first ${data.first}`),
      misses: el("span", { class: "badge bad" }, "miss"),
      unparsable: el("span", { class: "badge bad" }, "unparsable answers: ranked by the other scores"),
      unresolved: el("span", { class: "badge" }, "unresolved: no result, not counted as a miss"),
      unasked: el("span", { class: "badge" }, "this ranker did not have to rank this user"),
    }[outcome(run, user)];
    const head = [
      el("h4", {}, run.label, run.seed === null ? "" : ` (seed ${run.seed})`),
      el("p", { class: "facts" }, found ? `held-out item at rank ${found} of ${protocol().size} ` : "", verdict),
    ];
    if (!row) return [...head, el("p", { class: "facts" }, "This file holds only the rank of this user for this ranker.")];
    const list = protocol().lists[run.draw][user];
    return [...head, ...problems(row), ...profileOf(row, list, history), candidatesOf(run, row, list)];
  }

  function problems(row) {
    const problems = [];
    if (row.error) problems.push(row.error);
    if (row.unparsable) problems.push(`${plural(row.unparsable, "answer")} could not be parsed`);
    if (row.appended) problems.push(`${plural(row.appended, "candidate")} left out by the model, ranked below the others`);
    if (row.dropped) problems.push(`${plural(row.dropped, "label")} dropped (no candidate, or repeated)`);
    if (row.score_source) problems.push(`MAR scores from: ${row.score_source}`);
    return problems.length ? [el("p", { class: "facts" }, problems.join(" · "))] : [];
  }

  function profileOf(row, list, history) {
    if (!row.profile) return [];
    const light = (evidence, on) => {
      for (const number of evidence) find(`[data-shown="${number}"]`, history)?.classList.toggle("lit", on);
    };
    const motivations = row.profile.map(([dimension, strength, description, evidence]) => {
      const titles = evidence.map((number) => {
        const entry = list.history[list.unshown + number - 1];
        return entry ? `${list.earlier + list.unshown + number}. ${protocol().items[entry[0]][0]}` : `interaction ${number}`;
      });
      return el("li", { tabindex: "0", mouseenter: () => light(evidence, true), mouseleave: () => light(evidence, false),
        focus: () => light(evidence, true), blur: () => light(evidence, false) },
        el("b", {}, dimension), `${strength && ` (${strength})`}: ${description}`,
        el("div", { class: "category" }, `evidence: ${titles.join("; ")}`));
    });
    return [el("h4", {}, "Motivation profile and its evidence"), el("ul", { class: "profile" }, motivations)];
  }

  const PARTS = { prior: "prior alone", mar: "MAR alone", fused: "fused" };

  function candidatesOf(run, row, list) {
    const components = Object.keys(row.scores);
    const nameOf = (component) => ("fused" in row.scores && PARTS[component]) || component;
    const order = row.order.length ? row.order : list.candidates.map((_, i) => i);
    const reasons = new Map((row.reasons ?? []).map(([index, ...rest]) => [index, rest]));
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
        components.map((name) => el("th", {}, nameOf(name))))),
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
    if (runs.length < 2) return instead(root, "Only one ranker ran here.");
    const withModel = runs.find((run) => run.uses_lm && run.label !== data.reference);
    const a = runNamed(state().a) ?? withModel ?? runs.find((run) => run.label !== data.reference);
    const b = runNamed(state().b) ?? runs.find((run) => run.label === data.reference && run !== a) ?? runs.find((run) => run !== a);
    const options = runs.map((run) => [run.label, run.label]);
    controls(root, state().protocol, () => [
      el("h2", {}, protocol().name),
      el("p", { class: "caption" }, `Users for whom two rankers differ on the same lists. ${drilldownNote()}`),
      el("div", { class: "controls" },
        choice("a", "A", options, "", (label) => go({ a: label, user: "", cell: "" })),
        choice("b", "B", options, "", (label) => go({ b: label, user: "", cell: "" })),
        el("label", {}, "\u00a0", el("button", { id: "swap", click: swap }, "swap A and B"))),
      el("div", { id: "compared" }),
    ]);
    find("#a").value = a.label;
    find("#b").value = b.label;
    if (a.draw !== b.draw) return instead(find("#compared"), "These two rankers ranked different lists (other draws). Compare them in the tables.");
    compare(a, b);
  }

  function swap() {
    go({ a: find("#b").value, b: find("#a").value, cell: state().cell.split("-").reverse().join("-") });
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
    const key = [state().protocol, a.label, b.label].join("\u001f");
    if (root.dataset.key !== key) {
      root.dataset.key = key;
      root.replaceChildren(
        el("div", { class: "top" },
          el("div", {}, countsOf(a, b, hits, sides, neither, ranks.length - both.length), el("div", { class: "sides", id: "differ" })),
          el("figure", {}, el("div", { class: "plot", id: "scatter", style: "height:430px" }),
            el("figcaption", {}, "Ranks of the held-out item. Larger circles stand for more users. Above the diagonal, A ranks the item higher. Click a circle to list its users."))),
        el("div", { id: "pair" }));
      scatter(a, b, ranks, both);
    }
    const cell = /^(\d+)-(\d+)$/.exec(state().cell);
    const inCell = cell ? both.filter((user) => ranks[user][0] === Number(cell[1]) && ranks[user][1] === Number(cell[2])) : [];
    const listed = { [`A hits, B misses`]: sides.onlyA, [`B hits, A misses`]: sides.onlyB };
    if (cell) listed[`A at rank ${cell[1]}, B at rank ${cell[2]}`] = inCell;
    const first = [...inCell, ...sides.onlyA, ...sides.onlyB];
    const chosen = both.find((user) => protocol().users[user] === state().user) ?? first.find((user) => a.rows[user] && b.rows[user]) ?? first[0];
    find("#differ").replaceChildren(...Object.entries(listed).map(([title, users]) => differing(title, users, ranks, a, b, chosen)));
    find("#pair").replaceChildren(...(chosen === undefined ? [el("p", {}, "No user is a hit for one and a miss for the other.")] : userAsSeen(chosen, [a, b])));
  }

  function countsOf(a, b, hits, sides, neither, unresolved) {
    return el("div", {}, el("table", { class: "counts", id: "counts" },
      el("thead", {}, el("tr", {}, el("th", {}, `first ${data.first}`), el("th", {}, "B hits"), el("th", {}, "B misses"))),
      el("tbody", {},
        el("tr", {}, el("th", {}, "A hits"), el("td", {}, String(hits)), el("td", {}, String(sides.onlyA.length))),
        el("tr", {}, el("th", {}, "A misses"), el("td", {}, String(sides.onlyB.length)), el("td", {}, String(neither))))),
      el("p", { class: "caption" }, `A is ${a.label}, B is ${b.label}. ${unresolved ? `${plural(unresolved, "user")} without a rank by A or B left out.` : ""}`));
  }

  function differing(title, users, ranks, a, b, chosen) {
    const whole = (user) => a.rows[user] && b.rows[user];
    const ordered = [...users.filter(whole), ...users.filter((user) => !whole(user))];
    return el("div", { class: "list", "data-list": title },
      el("p", {}, `${title}: ${plural(users.length, "user")}${users.length > LISTED ? `, the first ${LISTED} listed` : ""}`),
      ...ordered.slice(0, LISTED).map((user) => userButton(user, `${ranks[user][0]} against ${ranks[user][1]}`, user === chosen, !whole(user))));
  }

  function scatter(a, b, ranks, both) {
    const cells = new Map();
    for (const user of both) {
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
    const axis = (title) => ({ title: { text: escaped(title) }, type: long ? "log" : "linear", range, zeroline: false });
    draw(find("#scatter"), {
      data: [
        { x: [1, size], y: [1, size], mode: "lines", line: { color: "#888888", dash: "dash", width: 1 }, hoverinfo: "skip", showlegend: false },
        {
          x: points.map(([x]) => x), y: points.map(([, y]) => y), customdata: keys, mode: "markers", showlegend: false,
          marker: { size: counts.map((n) => Math.max(6, Math.min(9, 30 / Math.sqrt(most)) * Math.sqrt(n))), color: data.looks[a.label]?.color ?? "#0072b2", opacity: 0.75, line: { width: 1, color: colour("--ground") } },
          text: counts.map((n) => plural(n, "user")), hovertemplate: "A %{x}, B %{y}: %{text}<extra></extra>",
        },
      ],
      layout: { xaxis: axis(`rank by A, ${a.label}`), yaxis: axis(`rank by B, ${b.label}`), margin: { l: 55, r: 15, t: 10, b: 45 }, height: 430 },
    }, (cell) => cell && go({ cell, user: "" }));
  }

  view("users", renderUsers, { ranker: "", show: "all", length: "", q: "" }, { user: "" });
  view("versus", renderVersus, { a: "", b: "" }, { user: "", cell: "" });
})();
