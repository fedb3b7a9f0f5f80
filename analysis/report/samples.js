// The list of samples: which pass the filters, fifty at a time.

const PAGE = 50;

function passing(data, state) {
  const arm = data.arm.get(state.arm), beside = data.arm.get(state.beside);
  const wanted = state.q.trim().toLowerCase();
  const out = [];
  for (let place = 0; place < data.size; place++) {
    if (state.type && data.samples.type[place] !== state.type) continue;
    if (wanted && !data.search[place].includes(wanted)) continue;
    if (state.disagree && !disagree(data, place)) continue;
    if (state.traced && !traced(data, place)) continue;
    if (state.status && !fits(state.status, arm, beside, place)) continue;
    out.push(place);
  }
  return out;
}

function fits(status, arm, beside, place) {
  if (arm.score[place] === null) return false;
  const right = arm.score[place] === 1;
  if (status === "right") return right;
  if (status === "wrong") return !right;
  if (beside.score[place] === null) return false;
  const other = beside.score[place] === 1;
  return status === "gained" ? right && !other : !right && other;
}

// An answer with its mark; the word beside the mark is for those who do not see it.
function answered(data, arm, place) {
  const found = verdict(arm, place);
  if (!found) return element("span", { class: "dim" }, "not asked");
  const told = found === "score" || found === "partly" ? ` (${number(arm.score[place], 3)})` : "";
  return element("span", { class: `verdict ${found}` },
    element("span", { class: "mark", "aria-hidden": "true" }, MARK[found]),
    unseen(found === "score" ? "" : `${found}: `), answerOf(data, arm, place) + told);
}

// A cell an arm, in their order: filled where it is not right.
function strip(data, place) {
  const all = data.arms.map((arm) => arm.score[place]);
  const side = 5, drawn = svg("svg", {
    width: all.length * side, height: 12, class: "strip", "aria-hidden": "true",
  });
  const bars = (test) => all.map((score, at) =>
    score !== null && test(score) ? `M${at * side + 0.5} 1h${side - 1}v10h${1 - side}z` : "").join("");
  drawn.append(svg("path", { class: "fair", d: bars((score) => score === 1) }),
    svg("path", { class: "poor", d: bars((score) => score !== 1) }));
  return drawn;
}

function showList(data, state, found, link, change) {
  const arm = data.arm.get(state.arm), beside = data.arm.get(state.beside);
  const last = Math.max(0, Math.ceil(found.length / PAGE) - 1);
  const page = Math.min(state.page, last);
  const heads = ["question", "target", `A: ${arm.name}`, `B: ${beside.name}`,
    "right, of all arms", "type", "sample", "traced"];
  const table = document.getElementById("list");
  table.tHead.replaceChildren(element("tr", {},
    ...heads.map((head) => element("th", { scope: "col" }, head))));
  table.tBodies[0].replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map((place) => {
    const id = data.samples.id[place];
    const all = asked(data, place);
    const right = all.filter((each) => each.score[place] === 1).length;
    // the link is for keys, and for a new tab; a click anywhere in the row opens the sample here
    const open = (event) => {
      if (event.target.closest("a") || String(getSelection())) return;
      change({ sample: id }, true);
    };
    return element("tr", { onclick: open },
      element("th", { scope: "row" }, element("a", { href: link({ sample: id }), "data-sample": id },
        data.samples.question[place] || id)),
      element("td", {}, data.samples.target[place]),
      element("td", {}, answered(data, arm, place)),
      element("td", {}, answered(data, beside, place)),
      element("td", { class: "line" },
        element("span", { class: "count" }, `${right} of ${all.length}`), strip(data, place)),
      element("td", { class: "dim line" }, data.samples.type[place]),
      element("td", { class: "dim line" }, id),
      element("td", { class: "dim" }, traced(data, place) ? "yes" : ""));
  }));
  document.getElementById("count").textContent =
    `${found.length} of ${data.size} samples${found.length ? "" : ": none passes the filters"}`;
  const pages = document.getElementById("pages");
  pages.hidden = last === 0;
  pages.querySelector("span").textContent =
    `${page * PAGE + 1} to ${Math.min((page + 1) * PAGE, found.length)}`;
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
  for (const name of ["arm", "beside"]) {
    form[name].replaceChildren(...data.arms.map((arm) =>
      element("option", { value: arm.key }, arm.name)));
  }
  const told = () => change({
    arm: form.arm.value, beside: form.beside.value, status: form.status.value,
    type: form.type.value, q: form.q.value, disagree: form.disagree.checked,
    traced: form.traced.checked, page: 0,
  });
  form.addEventListener("input", told);
  form.addEventListener("submit", (event) => event.preventDefault());
}

function syncFilters(state) {
  const form = document.getElementById("filters");
  for (const name of ["arm", "beside", "status", "type", "q"]) {
    if (form[name].value !== state[name]) form[name].value = state[name];
  }
  form.disagree.checked = state.disagree;
  form.traced.checked = state.traced;
}
