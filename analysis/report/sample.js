// View of one sample: pictures by arm, slider, tokens per layer, answers of all arms.

// `state` is the newest state of the page: a picture may load late, and the slider moves without
// building the view again.
const view = { state: null, panels: [], steps: [] };

async function showSample(data, state, change) {
  const index = data.indexOf.get(state.sample);
  const letters = [["A", state.arm], ["B", state.other]].filter(
    ([, key], at, all) => at === 0 || key !== all[0][1]);
  document.getElementById("question").textContent = data.samples.question[index] || state.sample;
  const facts = [["target", data.samples.target[index]], ["type", data.samples.type[index]],
    ["sample", state.sample]];
  document.getElementById("facts").replaceChildren(...facts.filter(([, words]) => words).map(
    ([name, words]) => element("div", {}, element("dt", {}, name), element("dd", {}, words))));
  showAnswers(data, state, index, change);
  const panels = [];
  for (const [letter, key] of letters) {
    const arm = data.arm.get(key);
    const trace = arm.traces[index];
    if (!trace) continue;
    const views = viewsOf(trace), shown = Math.min(state.image, views.length - 1);
    const fates = await viewFates(data, trace, views[shown]);
    const depth = tokensOf(data, arm, index).length;
    const sum = (value) => trace.images.reduce((total, item) => total + value(item), 0);
    const patches = sum((item) => item.grid[0] * item.grid[1]), encoded = sum((item) => item.tokens);
    panels.push({ letter, arm, index, trace, views, shown, fates, depth, patches, encoded,
      slots: trace.slots, picture: await viewPicture(data, trace, views[shown]) });
  }
  if (viewKey(view.state) !== viewKey(state)) return;
  view.panels = panels;
  document.getElementById("fates").hidden = panels.length === 0;
  showUntraced(data, index, letters, panels);
  if (!panels.length) return;
  view.steps = stepsOf(Math.max(...panels.map((panel) => panel.depth)));
  buildPanels(data, change);
  showLegend(new Set(panels.flatMap((panel) => [...marksOf(panel.fates, panel.depth)])));
  showStep(data);
}

// Key of a view; a picture that loads late must not be drawn into another view.
function viewKey(state) {
  return [state.sample, state.arm, state.other, state.image].join(" ");
}

function showUntraced(data, index, letters, panels) {
  const untraced = letters.filter(([letter]) => !panels.some((panel) => panel.letter === letter));
  const others = data.arms.filter((arm) => index in arm.traces).map((arm) => arm.name);
  const arms = untraced.map(([letter, key]) => `${letter} (${data.arm.get(key).name})`).join(" and ");
  document.getElementById("untraced").textContent = !untraced.length ? ""
    : `This sample has no trace in ${arms}. ` + (others.length ? `Arms with a trace: ${others.join(", ")}.`
      : "No arm has one; mustdrop trace writes traces.");
}

// First step of the slider: after the layer where arm A first drops tokens in the prefill.
function firstStep(panel) {
  const layers = panel.fates.left.filter((left) => left >= 0 && left < panel.depth);
  return layers.length ? String(Math.min(...layers)) : "-1";
}

function buildPanels(data, change) {
  const sections = view.panels.map((panel) => {
    const name = `${panel.letter}: ${panel.arm.name}`;
    panel.canvas = element("canvas", { role: "img" });
    panel.count = element("p", { class: "left" });
    panel.message = element("p", { class: "fate", role: "status" },
      "Point at a patch, or use the arrow keys in the picture.");
    panel.frame = element("div", {
      class: "frame", role: "application", tabindex: "0",
      "aria-label": `Patches of ${name}. Arrow keys select a patch.`,
      onkeydown: (event) => movePatch(data, panel, event),
      onpointermove: (event) => pointAt(data, panel, event),
      onblur: () => redraw(panel, null),
      onpointerleave: () => redraw(panel, null),
    }, panel.canvas);
    const pick = panel.views.length < 2 ? "" : element("label", {}, "picture ",
      element("select", { onchange: (event) => change({ image: Number(event.target.value) }) },
        ...panel.views.map((_, at) => element("option",
          { value: String(at), selected: at === panel.shown }, viewName(panel.views, at)))));
    return element("section", { class: "panel", "aria-label": name },
      element("h3", {}, name), element("p", {}, answerElement(data, panel.arm, panel.index), " ", pick),
      panel.frame, panel.count, panel.message);
  });
  document.getElementById("panels").replaceChildren(...sections,
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
  const counts = view.panels.map((panel) => {
    const words = leftWords(step, panel.patches, panel.encoded, panel.slots,
      tokensOf(data, panel.arm, panel.index), residentOf(data, panel.arm, panel.index));
    panel.count.textContent = words;
    panel.canvas.setAttribute("aria-label", pictureWords(panel.arm, panel.fates, step, panel.depth));
    redraw(panel, panel.cursor ?? null);
    return view.panels.length > 1 ? `${panel.letter} ${words}` : words;
  });
  slider.setAttribute("aria-valuetext", `${stepName(step)}: ${counts.join("; ")}`);
  document.getElementById("step").textContent = `${stepName(step)}: ${counts.join(" · ")}`;
  document.querySelector("#chart .now")?.setAttribute("transform",
    `translate(${chartX(view.steps.indexOf(step))} 0)`);
}

function redraw(panel, cursor) {
  panel.cursor = cursor;
  drawPicture(panel.canvas, panel.picture, panel.fates, stepOf(view.state), panel.depth, cursor);
}

function selectPatch(data, panel, patch) {
  if (patch === panel.cursor) return;
  redraw(panel, patch);
  panel.message.textContent = patchWords(data, panel.arm, panel.trace, panel.fates, patch, panel.depth);
}

function pointAt(data, panel, event) {
  const box = panel.canvas.getBoundingClientRect();
  const column = Math.floor(((event.clientX - box.left) / box.width) * panel.fates.columns);
  const row = Math.floor(((event.clientY - box.top) / box.height) * panel.fates.rows);
  if (row < 0 || column < 0 || row >= panel.fates.rows || column >= panel.fates.columns) return;
  selectPatch(data, panel, row * panel.fates.columns + column);
}

function movePatch(data, panel, event) {
  const { rows, columns } = panel.fates;
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  if (!(event.key in moves)) return;
  event.preventDefault();
  const here = panel.cursor ?? Math.floor(rows / 2) * columns + Math.floor(columns / 2);
  const [down, right] = panel.cursor === null ? [0, 0] : moves[event.key];
  const row = Math.min(rows - 1, Math.max(0, Math.floor(here / columns) + down));
  const column = Math.min(columns - 1, Math.max(0, (here % columns) + right));
  selectPatch(data, panel, row * columns + column);
}

const CHART = { width: 440, height: 220, left: 40, right: 12, top: 10, bottom: 30 };

function chartX(at) {
  const { width, left, right } = CHART;
  return left + (at / (view.steps.length - 1)) * (width - left - right);
}

// Chart of the tokens that enter each layer (A solid, B dashed) and those in its KV cache (dotted).
function chart(data) {
  const { width, height, left, right, top, bottom } = CHART;
  const lines = view.panels.map((panel) => ({
    letter: panel.letter, name: panel.arm.name,
    tokens: tokensOf(data, panel.arm, panel.index), resident: residentOf(data, panel.arm, panel.index),
  }));
  const largest = Math.max(1, ...lines.flatMap((line) => line.tokens));
  const y = (count) => top + (1 - count / largest) * (height - top - bottom);
  // The tokens that enter layer l are those left after layer l - 1.
  const path = (counts) => counts.map((count, layer) =>
    `${layer ? "V" : `M${chartX(1)} `}${y(count)}H${chartX(layer + 2)}`).join("");
  const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, id: "chart", role: "img",
    "aria-label": lines.map((line) => `Vision tokens that enter each layer, ${line.letter} ${line.name}: `
      + `${line.tokens.join(", ")}; in its KV cache: ${line.resident.join(", ")}`).join(". ") });
  for (const count of [0, largest / 2, largest]) {
    drawn.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(count), y2: y(count) }),
      svg("text", { x: left - 6, y: y(count) + 4, "text-anchor": "end" }, String(Math.round(count))));
  }
  const interval = Math.ceil(view.steps.length / 17);
  view.steps.forEach((step, at) => {
    const layer = at >= 2 && at < view.steps.length - 1;
    if (layer && (at - 2) % interval === 0) {
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

// Column heads of the control passes on the batches of an arm.
const CONTROLS = { schedule: "random, same schedule", flat: "random, flat", grid: "even grid" };

function showAnswers(data, state, index, change) {
  const kinds = [...new Set(data.arms.flatMap((arm) => Object.keys(arm.controls)))];
  const heads = ["", "arm", "answer", "score", "executed", "resident",
    ...kinds.map((kind) => CONTROLS[kind]), "show as"];
  const table = document.getElementById("answers");
  table.tHead.replaceChildren(element("tr", {}, ...heads.map((head) =>
    element("th", { scope: "col" }, head || screenReaderText("shown as")))));
  const body = armsWith(data, index).map((arm) => {
    const letter = letterOf(state, arm.key);
    const controls = kinds.map((kind) => arm.controls[kind]?.[index] ?? null);
    const pick = (name, label) => element("button", {
      type: "button", "aria-pressed": String(state[name] === arm.key),
      "data-focus": `${name} ${arm.key}`, "aria-label": `show ${arm.name} as ${label}`,
      onclick: () => change({ [name]: arm.key }),
    }, label);
    return element("tr", { class: letter ? "chosen" : null }, element("td", {}, letter),
      element("th", { scope: "row" }, mark(arm.look), arm.name), element("td", {}, answerElement(data, arm, index)),
      element("td", { class: "number" }, number(arm.score[index])),
      element("td", { class: "number" }, number(mean(tokensOf(data, arm, index)))),
      element("td", { class: "number" }, number(mean(residentOf(data, arm, index)))),
      ...controls.map((score) => element("td", { class: "number" }, score === null ? "" : number(score, 3))),
      element("td", { class: "line" }, pick("arm", "A"), " ", pick("other", "B"),
        index in arm.traces ? " traced" : ""));
  });
  keepFocus(table, () => table.tBodies[0].replaceChildren(...body));
}
