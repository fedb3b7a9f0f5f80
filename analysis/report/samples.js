// The list of samples that pass the filters, fifty per page.

const PAGE_SIZE = 50;

function matchingSamples(data, state) {
  const arm = data.arm.get(state.arm), other = data.arm.get(state.other);
  const wanted = state.q.trim().toLowerCase();
  const out = [];
  for (let index = 0; index < data.size; index++) {
    if (state.type && data.samples.type[index] !== state.type) continue;
    if (wanted && !data.search[index].includes(wanted)) continue;
    if (state.disagree && !disagree(data, index)) continue;
    if (state.traced && !traced(data, index)) continue;
    if (state.status && !fits(state.status, arm, other, index)) continue;
    out.push(index);
  }
  return out;
}

function fits(status, arm, other, index) {
  if (arm.score[index] === null) return false;
  const right = arm.score[index] === 1;
  if (status === "right") return right;
  if (status === "wrong") return !right;
  if (other.score[index] === null) return false;
  const otherRight = other.score[index] === 1;
  return status === "gained" ? right && !otherRight : !right && otherRight;
}

// Answer of an arm with a mark; the hidden word next to the mark is for screen readers.
function answerElement(data, arm, index) {
  const result = verdict(arm, index);
  if (!result) return element("span", { class: "dim" }, "no answer");
  const score = result === "score" || result === "partly" ? ` (${number(arm.score[index], 3)})` : "";
  return element("span", { class: `verdict ${result}` },
    element("span", { class: "mark", "aria-hidden": "true" }, MARK[result]),
    screenReaderText(result === "score" ? "" : `${result}: `), answerOf(data, arm, index) + score);
}

// Strip with one bar per arm: outlined if the arm is right, filled if it is not.
function strip(data, index) {
  const scores = data.arms.map((arm) => arm.score[index]);
  const side = 5, drawn = svg("svg", {
    width: scores.length * side, height: 12, class: "strip", "aria-hidden": "true",
  });
  const bars = (test) => scores.map((score, at) =>
    score !== null && test(score) ? `M${at * side + 0.5} 1h${side - 1}v10h${1 - side}z` : "").join("");
  drawn.append(svg("path", { class: "fair", d: bars((score) => score === 1) }),
    svg("path", { class: "poor", d: bars((score) => score !== 1) }));
  return drawn;
}

function showList(data, state, samples, link, change) {
  const arm = data.arm.get(state.arm), other = data.arm.get(state.other);
  const last = Math.max(0, Math.ceil(samples.length / PAGE_SIZE) - 1);
  const page = Math.min(state.page, last);
  const heads = ["question", "target", `A: ${arm.name}`, `B: ${other.name}`,
    "arms that are right", "type", "sample", "traced"];
  const table = document.getElementById("list");
  table.tHead.replaceChildren(element("tr", {},
    ...heads.map((head) => element("th", { scope: "col" }, head))));
  table.tBodies[0].replaceChildren(...samples.slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE).map((index) => {
    const id = data.samples.id[index];
    const answering = armsWith(data, index);
    const right = answering.filter((item) => item.score[index] === 1).length;
    // The link serves the keyboard and new tabs; a click anywhere in the row opens the sample here.
    const open = (event) => {
      if (event.target.closest("a") || String(getSelection())) return;
      change({ sample: id }, true);
    };
    return element("tr", { onclick: open },
      element("th", { scope: "row" }, element("a", { href: link({ sample: id }), "data-sample": id },
        data.samples.question[index] || id)),
      element("td", {}, data.samples.target[index]),
      element("td", {}, answerElement(data, arm, index)),
      element("td", {}, answerElement(data, other, index)),
      element("td", { class: "line" },
        element("span", { class: "count" }, `${right} of ${answering.length}`), strip(data, index)),
      element("td", { class: "dim line" }, data.samples.type[index]),
      element("td", { class: "dim line" }, id),
      element("td", { class: "dim" }, traced(data, index) ? "yes" : ""));
  }));
  document.getElementById("count").textContent =
    `${samples.length} of ${data.size} samples${samples.length ? "" : ": none passes the filters"}`;
  const pages = document.getElementById("pages");
  pages.hidden = last === 0;
  pages.querySelector("span").textContent =
    `${page * PAGE_SIZE + 1} to ${Math.min((page + 1) * PAGE_SIZE, samples.length)}`;
  for (const button of pages.querySelectorAll("button")) {
    const target = page + Number(button.dataset.step);
    button.disabled = target < 0 || target > last;
    button.onclick = () => change({ page: target });
  }
}

function fillFilters(data, state, change) {
  const form = document.getElementById("filters");
  const types = [...new Set(data.samples.type)].filter(Boolean).sort();
  form.type.replaceChildren(element("option", { value: "" }, "any"),
    ...types.map((type) => element("option", { value: type }, type)));
  for (const name of ["arm", "other"]) {
    form[name].replaceChildren(...data.arms.map((arm) =>
      element("option", { value: arm.key }, arm.name)));
  }
  const update = () => change({
    arm: form.arm.value, other: form.other.value, status: form.status.value,
    type: form.type.value, q: form.q.value, disagree: form.disagree.checked,
    traced: form.traced.checked, page: 0,
  });
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
}

function syncFilters(state) {
  const form = document.getElementById("filters");
  for (const name of ["arm", "other", "status", "type", "q"]) {
    if (form[name].value !== state[name]) form[name].value = state[name];
  }
  form.disagree.checked = state.disagree;
  form.traced.checked = state.traced;
}
