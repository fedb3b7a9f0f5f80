// One sample: its pictures by arm, the slider's step, the tokens per layer, all answers.

// `state` is the page's newest: a picture may come late, and the slider moves without a new view.
const view = { state: null, panels: [], steps: [] };

async function showSample(data, state, change) {
  const place = data.place.get(state.sample);
  const letters = [["A", state.arm], ["B", state.beside]].filter(
    ([, key], at, all) => at === 0 || key !== all[0][1]);
  document.getElementById("question").textContent = data.samples.question[place] || state.sample;
  const facts = [["target", data.samples.target[place]], ["type", data.samples.type[place]],
    ["sample", state.sample]];
  document.getElementById("asked").replaceChildren(...facts.filter(([, words]) => words).map(
    ([name, words]) => element("div", {}, element("dt", {}, name), element("dd", {}, words))));
  showAnswers(data, state, place, change);
  const panels = [];
  for (const [letter, key] of letters) {
    const arm = data.arm.get(key);
    const trace = arm.traces[place];
    if (!trace) continue;
    const shown = Math.min(state.image, trace.images.length - 1);
    const image = trace.images[shown];
    const fates = await fatesOf(data, image);
    const depth = tokensOf(data, arm, place).length;
    const sum = (value) => trace.images.reduce((total, one) => total + value(one), 0);
    const patches = sum((one) => one.grid[0] * one.grid[1]), handed = sum((one) => one.tokens);
    panels.push({ letter, arm, place, trace, shown, fates, depth, patches, handed,
      picture: await pictureOf(data, image.picture) });
  }
  if (wantedKey(view.state) !== wantedKey(state)) return;
  view.panels = panels;
  document.getElementById("fates").hidden = panels.length === 0;
  showUntraced(data, place, letters, panels);
  if (!panels.length) return;
  view.steps = stepsOf(Math.max(...panels.map((panel) => panel.depth)));
  buildPanels(data, change);
  showLegend(new Set(panels.flatMap((panel) => [...marksOf(panel.fates, panel.depth)])));
  showStep(data);
}

// What a view is of; a slow picture of another one must not be drawn over it.
function wantedKey(state) {
  return [state.sample, state.arm, state.beside, state.image].join(" ");
}

function showUntraced(data, place, letters, panels) {
  const lacking = letters.filter(([letter]) => !panels.some((panel) => panel.letter === letter));
  const others = data.arms.filter((arm) => place in arm.traces).map((arm) => arm.name);
  const told = lacking.map(([letter, key]) => `${letter} (${data.arm.get(key).name})`).join(" and ");
  document.getElementById("untraced").textContent = !lacking.length ? ""
    : `This sample has no trace in ${told}. ` + (others.length ? `It has one in: ${others.join(", ")}.`
      : "It has one in no arm: experiments/trace.py writes them.");
}

// Where the slider stands if nobody moved it: after the layer where A first drops in the prefill.
function firstStep(panel) {
  const layers = panel.fates.left.filter((left) => left >= 0 && left < panel.depth);
  return layers.length ? String(Math.min(...layers)) : "-1";
}

function buildPanels(data, change) {
  const made = view.panels.map((panel) => {
    const name = `${panel.letter}: ${panel.arm.name}`;
    panel.canvas = element("canvas", { role: "img" });
    panel.count = element("p", { class: "left" });
    panel.told = element("p", { class: "fate", role: "status" },
      "Point at a patch, or use the arrow keys in the picture.");
    panel.frame = element("div", {
      class: "frame", role: "application", tabindex: "0",
      "aria-label": `Patches of ${name}. Arrow keys go from patch to patch.`,
      onkeydown: (event) => walk(data, panel, event),
      onpointermove: (event) => point(data, panel, event),
      onblur: () => redraw(panel, null),
      onpointerleave: () => redraw(panel, null),
    }, panel.canvas);
    const pick = panel.trace.images.length < 2 ? "" : element("label", {}, "picture ",
      element("select", { onchange: (event) => change({ image: Number(event.target.value) }) },
        ...panel.trace.images.map((_, at) => element("option",
          { value: String(at), selected: at === panel.shown }, `${at + 1} of ${panel.trace.images.length}`))));
    return element("section", { class: "panel", "aria-label": name },
      element("h3", {}, name), element("p", {}, answered(data, panel.arm, panel.place), " ", pick),
      panel.frame, panel.count, panel.told);
  });
  document.getElementById("panels").replaceChildren(...made,
    element("div", {}, chart(data), document.getElementById("legend")));
  const slider = document.getElementById("layer");
  slider.max = String(view.steps.length - 1);
}

function stepOf(state) {
  const wanted = state.layer || firstStep(view.panels[0]);
  return view.steps.includes(wanted) ? wanted : view.steps.at(-2);
}

function showStep(data) {
  if (!view.panels.length) return;
  const step = stepOf(view.state);
  const slider = document.getElementById("layer");
  slider.value = String(view.steps.indexOf(step));
  const told = view.panels.map((panel) => {
    const words = leftWords(step, panel.patches, panel.handed,
      tokensOf(data, panel.arm, panel.place), residentOf(data, panel.arm, panel.place));
    panel.count.textContent = words;
    panel.canvas.setAttribute("aria-label", pictureWords(panel.arm, panel.fates, step, panel.depth));
    redraw(panel, panel.cursor ?? null);
    return view.panels.length > 1 ? `${panel.letter} ${words}` : words;
  });
  slider.setAttribute("aria-valuetext", `${stepName(step)}: ${told.join("; ")}`);
  document.getElementById("step").textContent = `${stepName(step)}: ${told.join(" · ")}`;
  document.querySelector("#chart .now")?.setAttribute("transform",
    `translate(${chartX(view.steps.indexOf(step))} 0)`);
}

function redraw(panel, cursor) {
  panel.cursor = cursor;
  drawPicture(panel.canvas, panel.picture, panel.fates, stepOf(view.state), panel.depth, cursor);
}

function tell(data, panel, patch) {
  if (patch === panel.cursor) return;
  redraw(panel, patch);
  panel.told.textContent = patchWords(data, panel.arm, panel.trace, panel.fates, patch, panel.depth);
}

function point(data, panel, event) {
  const box = panel.canvas.getBoundingClientRect();
  const column = Math.floor(((event.clientX - box.left) / box.width) * panel.fates.columns);
  const row = Math.floor(((event.clientY - box.top) / box.height) * panel.fates.rows);
  if (row < 0 || column < 0 || row >= panel.fates.rows || column >= panel.fates.columns) return;
  tell(data, panel, row * panel.fates.columns + column);
}

function walk(data, panel, event) {
  const { rows, columns } = panel.fates;
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  if (!(event.key in moves)) return;
  event.preventDefault();
  const here = panel.cursor ?? Math.floor(rows / 2) * columns + Math.floor(columns / 2);
  const [down, right] = panel.cursor === null ? [0, 0] : moves[event.key];
  const row = Math.min(rows - 1, Math.max(0, Math.floor(here / columns) + down));
  const column = Math.min(columns - 1, Math.max(0, (here % columns) + right));
  tell(data, panel, row * columns + column);
}

const CHART = { width: 440, height: 220, left: 40, right: 12, top: 10, bottom: 30 };

function chartX(at) {
  const { width, left, right } = CHART;
  return left + (at / (view.steps.length - 1)) * (width - left - right);
}

// Tokens that enter each layer (A solid, B dashed) and those in its KV cache (dotted).
function chart(data) {
  const { width, height, left, right, top, bottom } = CHART;
  const lines = view.panels.map((panel) => ({
    letter: panel.letter, name: panel.arm.name,
    tokens: tokensOf(data, panel.arm, panel.place), resident: residentOf(data, panel.arm, panel.place),
  }));
  const most = Math.max(1, ...lines.flatMap((line) => line.tokens));
  const y = (count) => top + (1 - count / most) * (height - top - bottom);
  // the tokens that enter layer l are those left after layer l - 1
  const path = (counts) => counts.map((count, layer) =>
    `${layer ? "V" : `M${chartX(1)} `}${y(count)}H${chartX(layer + 2)}`).join("");
  const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, id: "chart", role: "img",
    "aria-label": lines.map((line) => `Vision tokens that enter each layer, ${line.letter} ${line.name}: `
      + `${line.tokens.join(", ")}; in its KV cache: ${line.resident.join(", ")}`).join(". ") });
  for (const count of [0, most / 2, most]) {
    drawn.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(count), y2: y(count) }),
      svg("text", { x: left - 6, y: y(count) + 4, "text-anchor": "end" }, String(Math.round(count))));
  }
  const every = Math.ceil(view.steps.length / 17);
  view.steps.forEach((step, at) => {
    const layer = at >= 2 && at < view.steps.length - 1;
    if (layer && (at - 2) % every === 0) {
      drawn.append(svg("text", { x: chartX(at), y: height - 12, "text-anchor": "middle" }, step));
    }
  });
  drawn.append(svg("text", { x: left, y: height - 12 }, "layer"),
    svg("line", { class: "now", x1: 0, x2: 0, y1: top - 6, y2: height - bottom + 4 }));
  for (const line of lines) {
    drawn.append(svg("path", { class: `held ${line.letter}`, d: path(line.resident) }),
      svg("path", { class: `entered ${line.letter}`, d: path(line.tokens) }));
  }
  return element("figure", {}, drawn, element("figcaption", {},
    "Vision tokens that enter each layer (A solid, B dashed) and in its KV cache (dotted)."));
}

// What ran beside an arm on the same batches, by its score.
const BESIDE = { schedule: "random, same schedule", flat: "random, flat", grid: "even grid" };

function showAnswers(data, state, place, change) {
  const kinds = [...new Set(data.arms.flatMap((arm) => Object.keys(arm.beside)))];
  const heads = ["", "arm", "answer", "score", "executed", "resident",
    ...kinds.map((kind) => BESIDE[kind]), "show as"];
  const table = document.getElementById("answers");
  table.tHead.replaceChildren(element("tr", {}, ...heads.map((head) =>
    element("th", { scope: "col" }, head || unseen("shown as")))));
  const body = asked(data, place).map((arm) => {
    const letter = letterOf(state, arm.key);
    const beside = kinds.map((kind) => arm.beside[kind]?.[place] ?? null);
    const pick = (name, label) => element("button", {
      type: "button", "aria-pressed": String(state[name] === arm.key),
      "data-focus": `${name} ${arm.key}`, "aria-label": `show ${arm.name} as ${label}`,
      onclick: () => change({ [name]: arm.key }),
    }, label);
    return element("tr", { class: letter ? "chosen" : null }, element("td", {}, letter),
      element("th", { scope: "row" }, mark(arm.look), arm.name), element("td", {}, answered(data, arm, place)),
      element("td", { class: "number" }, number(arm.score[place])),
      element("td", { class: "number" }, number(mean(tokensOf(data, arm, place)))),
      element("td", { class: "number" }, number(mean(residentOf(data, arm, place)))),
      ...beside.map((score) => element("td", { class: "number" }, score === null ? "" : number(score, 3))),
      element("td", { class: "line" }, pick("arm", "A"), " ", pick("beside", "B"),
        place in arm.traces ? " traced" : ""));
  });
  refocused(table, () => table.tBodies[0].replaceChildren(...body));
}
