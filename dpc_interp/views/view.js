// The interactive view of `dpc.view`: one ES module, without a build step and without any request.
//
// `render({ model, el })` is the convention of anywidget. `model` has the traits of `widget.py`; in a saved page
// `page.html.jinja` gives an object with the same four methods. Only what is shown is computed here. Everything that is
// shown goes through `textContent`, so no text of a model, question or answer is read as HTML.

const TOP = 8; // rows of the table of largest flows
const SEGMENTS = ["prompt", "question", "rationale", "answer"];

function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null).map((child) => (child instanceof Node ? child : String(child))));
  return node;
}

const number = (value) => (value === 0 ? "0" : Math.abs(value) < 1e-3 ? Number(value).toExponential(2) : Number(value).toPrecision(3));
const percent = (value) => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)}%`;
const inside = (span, position) => span[0] <= position && position < span[1];

// ---- the flow -------------------------------------------------------------------------------------------------------

// Undo `payload.encode_flow`: counts, totals, sources and values, each uint16, one after the other.
async function decodeFlow(data, code) {
  const bytes = new Uint8Array(data.buffer ?? data, data.byteOffset ?? 0, data.byteLength);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const numbers = new Uint16Array(await new Response(stream).arrayBuffer());
  const nRows = code.n_maps * code.n_positions;
  const [counts, totals] = [numbers.subarray(0, nRows), numbers.subarray(nRows, 2 * nRows)];
  const nKept = (numbers.length - 2 * nRows) / 2;
  const sources = numbers.subarray(2 * nRows, 2 * nRows + nKept);
  const values = numbers.subarray(2 * nRows + nKept);
  const starts = new Uint32Array(nRows + 1);
  for (let row = 0; row < nRows; row++) starts[row + 1] = starts[row] + counts[row];
  const value = (step) => (step === 0 ? 0 : Math.exp(code.log_low + (step - 1) * code.log_step));
  return {
    total: (map, dest) => value(totals[map * code.n_positions + dest]),
    // The flow into `dest`, or out of `src`, as [position, value] pairs.
    into(map, dest) {
      const row = map * code.n_positions + dest;
      const pairs = [];
      for (let k = starts[row]; k < starts[row + 1]; k++) pairs.push([sources[k], value(values[k])]);
      return pairs;
    },
    outOf(map, src) {
      const pairs = [];
      for (let dest = src + 1; dest < code.n_positions; dest++) {
        const row = map * code.n_positions + dest;
        for (let k = starts[row]; k < starts[row + 1] && sources[k] <= src; k++)
          if (sources[k] === src) pairs.push([dest, value(values[k])]);
      }
      return pairs;
    },
  };
}

// ---- one instance ---------------------------------------------------------------------------------------------------

function caseView(el, info, flow, select) {
  const { n_layers: nLayers, groups, segments, tokens } = info;
  const state = { map: nLayers + Object.keys(groups).indexOf("deep"), direction: "from", share: false, token: null };
  const segmentOf = (position) => SEGMENTS.find((name) => inside(segments[name], position)) ?? "after the answer";
  const stepOf = (position) => info.steps.findIndex((span) => inside(span, position));
  const placeOf = (position) => (stepOf(position) < 0 ? segmentOf(position) : `step ${stepOf(position) + 1}`);
  const affected = new Set(info.affected);
  const nVirtual = segments.prompt[1];

  // The text, one element a token. Roving tabindex: one token is in the tab order, arrow keys move among them.
  const nodes = tokens.map((text, position) => {
    const virtual = position < nVirtual;
    const isPeak = virtual && position === info.peak_token;
    const notes = [
      isPeak ? "accumulation token" : null,
      virtual && info.sinks.includes(position) ? "attention sink" : null,
      affected.has(position) ? "affected by the prompt" : null,
    ].filter(Boolean);
    const classes = ["token", virtual ? "chip" : null, isPeak ? "peak" : null, affected.has(position) ? "affected" : null];
    const node = h("span", {
      class: classes.filter(Boolean).join(" "),
      role: "option",
      tabindex: -1,
      "aria-selected": "false",
      "data-position": position,
      "aria-label": [virtual ? `virtual token ${position}` : `${text.trim() || "white space"}`, placeOf(position), ...notes].join(", "),
      title: [`${virtual ? "virtual token" : "position"} ${position}`, placeOf(position), ...notes].join(" · "),
    });
    node.textContent = virtual ? `${isPeak ? "▲" : ""}${info.sinks.includes(position) ? "⌄" : ""}${position}` : text.replace(/\n/g, "↵");
    return node;
  });
  const spanOf = ([start, stop]) => nodes.slice(start, stop);
  const block = (title, className, children) =>
    h("div", { class: `segment ${className}` }, h("span", { class: "segment-name", "aria-hidden": "true" }, title), h("span", { class: "segment-text" }, ...children));
  const steps = info.steps.map((span, k) => {
    const children = spanOf(span);
    if (inside(span, info.late[0])) children.splice(info.late[0] - span[0], 0, h("span", { class: "late-mark", title: "the late half starts here" }, "late ▸"));
    return block(`step ${k + 1}`, "rationale", children);
  });
  const list = h(
    "div",
    { class: "tokens", role: "listbox", "aria-label": "Tokens of the sequence" },
    nVirtual ? block("prompt", "prompt", spanOf(segments.prompt)) : null,
    block("question", "question", spanOf(segments.question)),
    ...steps,
    segments.answer[1] > segments.answer[0] ? block("answer", "answer", spanOf(segments.answer)) : null,
    tokens.length > segments.answer[1] ? block("after it", "after", nodes.slice(segments.answer[1])) : null,
  );

  // Controls
  const names = [...Array.from({ length: nLayers }, (_, layer) => `layer ${layer}`), ...Object.keys(groups).map((name) => `${name} layers (${groups[name]})`)];
  const slider = h("input", { type: "range", min: 0, max: nLayers - 1, step: 1, "aria-label": "Layer" });
  const layerName = h("output", { class: "layer-name" });
  const groupButtons = Object.keys(groups).map((name, k) => h("button", { type: "button", "data-map": nLayers + k }, name));
  const choice = (label, options, current, onchoose) => {
    const buttons = options.map(([value, text]) => h("button", { type: "button", "aria-pressed": String(value === current), onclick: () => choose(value) }, text));
    const choose = (value) => {
      buttons.forEach((button, k) => button.setAttribute("aria-pressed", String(options[k][0] === value)));
      onchoose(value);
      draw();
    };
    return h("div", { class: "choice", role: "group", "aria-label": label }, ...buttons);
  };
  const showMap = (map) => {
    state.map = map;
    if (map < nLayers) slider.value = map;
    layerName.textContent = names[map];
    slider.setAttribute("aria-valuetext", names[map]);
    groupButtons.forEach((button, k) => button.setAttribute("aria-pressed", String(map === nLayers + k)));
  };
  slider.addEventListener("input", () => (showMap(Number(slider.value)), draw()));
  groupButtons.forEach((button, k) => button.addEventListener("click", () => (showMap(nLayers + k), draw())));
  const controls = h(
    "div",
    { class: "controls" },
    choice("Direction", [["from", "draws from"], ["to", "flows to"]], state.direction, (value) => (state.direction = value)),
    choice("Quantity", [[false, "flow"], [true, "row share"]], state.share, (value) => (state.share = value)),
    h("div", { class: "choice", role: "group", "aria-label": "Layers" }, ...groupButtons),
    h("label", { class: "slider" }, "layer ", slider, layerName),
  );

  // Numbers
  const sentence = h("p", { class: "sentence", "aria-live": "polite" });
  const body = h("tbody");
  const columns = ["token", "at", "in", "flow", "row share"];
  const table = h("table", { class: "numbers" }, h("thead", {}, h("tr", {}, ...columns.map((name) => h("th", { scope: "col" }, name)))), body);

  const label = (position) => (position < nVirtual ? `virtual token ${position}` : `“${tokens[position].trim() || "↵"}”`);
  const short = (text) => (text.length > 40 ? `${text.slice(0, 40)}…` : text);
  let coloured = [];
  function draw() {
    const { map, token, direction, share } = state;
    const isFrom = direction === "from";
    const pairs = (isFrom ? flow.into(map, token) : flow.outOf(map, token)).map(([position, value]) => {
      const total = flow.total(map, isFrom ? token : position);
      return { position, value, share: total > 0 ? value / total : 0 };
    });
    const quantity = (pair) => (share ? pair.share : pair.value);
    const largest = Math.max(0, ...pairs.map(quantity));
    for (const position of coloured) nodes[position].style.removeProperty("--level");
    coloured = [];
    for (const pair of pairs)
      if (quantity(pair) > 0) {
        nodes[pair.position].style.setProperty("--level", Math.sqrt(quantity(pair) / largest).toFixed(3));
        coloured.push(pair.position);
      }
    pairs.sort((a, b) => quantity(b) - quantity(a) || a.position - b.position);
    body.replaceChildren(
      ...pairs.slice(0, TOP).map((pair) =>
        h(
          "tr",
          { "data-position": pair.position },
          h("td", {}, short(pair.position < nVirtual ? `virtual ${pair.position}` : tokens[pair.position].replace(/\n/g, "↵"))),
          h("td", {}, pair.position),
          h("td", {}, placeOf(pair.position)),
          h("td", { "data-value": pair.value }, number(pair.value)),
          h("td", { "data-value": pair.share }, percent(pair.share)),
        ),
      ),
    );
    sentence.textContent = describe(pairs, isFrom);
  }
  function describe(pairs, isFrom) {
    const { map, token, share } = state;
    const name = short(label(token));
    const isCut = info.flow.largest_dropped > 0;
    if (!pairs.length && isFrom && flow.total(map, token) > 0) return `${name}: all of its sources in ${names[map]} are too small to be kept.`;
    if (!pairs.length) return `${name}: no flow ${isFrom ? "into" : "out of"} it in ${names[map]}.`;
    if (!isFrom) {
      // the largest flow out of each token is always kept, its largest share of a row is not
      const largest = share ? `the largest share of a row${isCut ? " that is kept" : ""} is that of` : "the largest flow goes to";
      return `${name} flows to ${isCut ? "at least " : ""}${pairs.length} tokens in ${names[map]}; ${largest} ${short(label(pairs[0].position))}.`;
    }
    const total = flow.total(map, token);
    const parts = new Map();
    for (const pair of pairs) {
      const place = stepOf(pair.position) >= 0 ? (stepOf(pair.position) === stepOf(token) ? "its own step" : "earlier steps") : segmentOf(pair.position);
      parts.set(place, (parts.get(place) ?? 0) + pair.share);
    }
    const listed = [...parts].map(([place, value]) => `${percent(value)} from ${place === "answer" ? "the answer" : place === "prompt" || place === "question" ? `the ${place}` : place}`);
    const rest = 1 - pairs.reduce((sum, pair) => sum + pair.share, 0);
    if (rest > 0.005) listed.push(`${percent(rest)} from sources too small to be kept`);
    return `${name} draws a flow of ${number(total)} in ${names[map]}: ${listed.join(", ")}.`;
  }
  function focusToken(position, { move = false, send = true } = {}) {
    if (state.token !== null) {
      nodes[state.token].setAttribute("aria-selected", "false");
      nodes[state.token].tabIndex = -1;
    }
    state.token = position;
    nodes[position].setAttribute("aria-selected", "true");
    nodes[position].tabIndex = 0;
    if (move) nodes[position].focus();
    draw();
    if (send) select(position);
  }
  // Hovering shows a token until one is clicked, which stays; Escape lets the pointer choose again.
  let pinned = false;
  const onToken = (type, act) =>
    list.addEventListener(type, (event) => {
      const position = event.target.closest?.(".token")?.dataset.position;
      if (position !== undefined) act(Number(position));
    });
  onToken("pointerover", (position) => pinned || position === state.token || focusToken(position, { send: false }));
  onToken("focusin", (position) => position === state.token || focusToken(position));
  onToken("click", (position) => {
    pinned = true;
    focusToken(position);
  });
  list.addEventListener("keydown", (event) => {
    if (event.key === "Escape") pinned = false;
    const starts = [segments.prompt[0], segments.question[0], ...info.steps.map((span) => span[0]), segments.answer[0]].filter((p) => p < nodes.length);
    const moves = {
      ArrowRight: () => state.token + 1,
      ArrowLeft: () => state.token - 1,
      ArrowDown: () => starts.find((start) => start > state.token) ?? nodes.length - 1,
      ArrowUp: () => starts.filter((start) => start < state.token).at(-1) ?? 0,
      Home: () => 0,
      End: () => nodes.length - 1,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    focusToken(Math.min(nodes.length - 1, Math.max(0, moves[event.key]())), { move: true });
  });

  el.replaceChildren(
    h("header", {}, h("h3", {}, info.title), h("p", { class: `outcome ${info.correct ? "right" : "wrong"}` }, `${info.correct ? "✓ right" : "✗ wrong"}: answered ${info.answer}, expected ${info.expected}`)),
    info.trigger ? h("p", { class: "trigger" }, info.trigger) : "",
    controls,
    h("div", { class: "columns" }, list, h("div", { class: "readout" }, sentence, h("div", { class: "scroll" }, table))),
    h("p", { class: "legend" }, info.legend),
    info.changes ? changesView(info) : "",
    h("p", { class: "note" }, info.note),
  );
  showMap(state.map);
  focusToken(Math.min(info.first_token, nodes.length - 1), { send: false });
}

// The answer under corruption next to the original, word by word.
function changesView(info) {
  const column = (title, side, mark, word) =>
    h(
      "div",
      { class: `text ${side}` },
      h("h4", {}, title),
      h("p", {}, ...info.changes.map((part) => (part.same !== undefined ? part.same : part[side] ? h(mark, { "aria-label": `${word}: ${part[side]}` }, part[side]) : ""))),
    );
  return h(
    "section",
    { class: "changes", "aria-label": "The answer under corruption" },
    column(`With the prompt: ${info.answer} (${info.correct ? "right" : "wrong"})`, "before", "del", "only here"),
    column(`${info.corruption}: ${info.corrupted_answer} (${info.corrupted_correct ? "right" : "wrong"})`, "after", "ins", "only here"),
  );
}

// ---- a study --------------------------------------------------------------------------------------------------------

function studyView(el, study, open) {
  const { columns, rows, filters } = study;
  const state = { sort: null, descending: false, chosen: {} };
  const body = h("tbody");
  const count = h("p", { class: "count", "aria-live": "polite" });
  const heads = columns.map((name, k) => h("th", { scope: "col", "aria-sort": "none" }, h("button", { type: "button", onclick: () => sortBy(k) }, name)));
  const selects = filters.map((name) => {
    const k = columns.indexOf(name);
    const values = [...new Set(rows.map((row) => String(row[k])))].sort();
    const select = h("select", { "data-filter": name, onchange: () => ((state.chosen[k] = select.value), draw()) }, h("option", { value: "" }, "any"), ...values.map((value) => h("option", { value }, value)));
    return h("label", {}, `${name} `, select);
  });
  const shown = (value) => (value === null ? "–" : typeof value === "number" && !Number.isInteger(value) ? number(value) : value);
  function sortBy(k) {
    state.descending = state.sort === k ? !state.descending : false;
    state.sort = k;
    heads.forEach((head, j) => head.setAttribute("aria-sort", j === k ? (state.descending ? "descending" : "ascending") : "none"));
    draw();
  }
  function draw() {
    const kept = rows.map((row, index) => ({ row, index })).filter(({ row }) => Object.entries(state.chosen).every(([k, value]) => value === "" || String(row[k]) === value));
    if (state.sort !== null) {
      const k = state.sort;
      const sign = state.descending ? -1 : 1;
      const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
      // what is missing comes last in both directions
      kept.sort((a, b) => (a.row[k] === null) - (b.row[k] === null) || sign * compare(a.row[k], b.row[k]) || a.index - b.index);
    }
    count.textContent = `${kept.length} of ${rows.length} instances`;
    body.replaceChildren(
      ...kept.map(({ row, index }) => {
        const available = study.available === null || study.available.includes(index);
        const button = h("button", { type: "button", disabled: !available, "aria-label": `open ${row[columns.indexOf("instance")]}${available ? "" : ", which is not in this file"}`, title: available ? "" : "not in this file: save it with this row among rows=, or open the study in Python", onclick: () => open(index) }, "open");
        return h("tr", { "data-row": index }, h("td", {}, button), ...row.map((value) => h("td", {}, shown(value))));
      }),
    );
  }
  el.replaceChildren(
    h("header", {}, h("h3", {}, study.title)),
    h("div", { class: "controls" }, ...selects),
    count,
    h("div", { class: "scroll table" }, h("table", { class: "instances" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, h("span", { class: "hidden" }, "view")), ...heads)), body)),
    study.note ? h("p", { class: "note" }, study.note) : "",
  );
  draw();
}

// ---- the module -----------------------------------------------------------------------------------------------------

function render({ model, el }) {
  const root = h("div", { class: "dpc-view" });
  const [studyPart, casePart] = [h("div"), h("div", { class: "case" })];
  root.append(studyPart, casePart);
  el.append(root);
  const set = (name, value) => (model.set(name, value), model.save_changes());
  let wanted = 0;
  async function showCase() {
    const info = model.get("case");
    const mine = ++wanted;
    if (info?.error) return casePart.replaceChildren(h("p", { role: "alert" }, info.error));
    if (!info?.tokens) return casePart.replaceChildren();
    const flow = await decodeFlow(model.get("data"), info.flow);
    if (mine === wanted) caseView(casePart, info, flow, (position) => set("selected_token", position));
  }
  const study = model.get("study");
  if (study?.rows)
    studyView(studyPart, study, (index) => {
      if (model.get("opened") === index && model.get("case")?.tokens) return showCase(); // nothing would change
      casePart.replaceChildren(h("p", { role: "status" }, "computing …"));
      set("opened", index);
    });
  model.on("change:case", showCase);
  showCase();
  return () => model.off?.("change:case", showCase);
}

export default { render };
