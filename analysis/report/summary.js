// The summary table: sorted by any column, each row leads to its arm. Also small makers of elements.

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// The mark of a method, as all figures have it.
function mark(look) {
  return svg("svg", { class: "look", viewBox: "-1.2 -1.2 2.4 2.4", "aria-hidden": "true" },
    svg("path", { d: look.outline, fill: look.color }));
}

// A table that goes on to the right says so, by a fade and in words.
function hint(wide) {
  const more = wide.scrollWidth - wide.clientWidth - wide.scrollLeft > 2;
  wide.classList.toggle("more", more);
  wide.parentElement.querySelector(".hint").hidden = wide.scrollWidth - wide.clientWidth <= 2;
}

function hintAll() {
  for (const wide of document.querySelectorAll(".wide")) hint(wide);
}

function unseen(text) {
  return element("span", { class: "unseen" }, text);
}

// What had the focus in a place that is made anew has it afterwards.
function refocused(place, make) {
  const name = place.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  make();
  if (name) place.querySelector(`[data-focus="${CSS.escape(name)}"]`)?.focus();
}

// Rows without a value come last in either direction; text after numbers.
function compared(first, second, direction) {
  if (first === null || second === null) return (first === null) - (second === null);
  if (typeof first !== typeof second) return typeof first === "number" ? -1 : 1;
  const order = typeof first === "number" ? first - second : first.localeCompare(second);
  return direction * order;
}

function letterOf(state, key) {
  return key === state.arm ? "A" : key === state.beside ? "B" : "";
}

function showSummary(data, state, change) {
  const { title, heads, rows, notes } = data.summary;
  const table = document.getElementById("summary");
  const named = heads.indexOf("method");
  const [column, direction] = state.sort ?? [-1, 1];
  const numeric = heads.map((_, place) => rows.some((row) => typeof row.order[place] === "number"));
  const head = element("tr", {}, element("th", { scope: "col" }, unseen("shown as")));
  heads.forEach((name, place) => {
    const sorted = place === column ? (direction > 0 ? "ascending" : "descending") : "none";
    const first = numeric[place] ? -1 : 1; // largest first
    const next = place === column ? -direction : first;
    head.append(element("th", { scope: "col", "aria-sort": sorted, class: numeric[place] ? "number" : null },
      element("button", {
        type: "button", "data-focus": `sort ${place}`, onclick: () => change({ sort: [place, next] }),
      }, name.replaceAll(" %", "\u00a0%"))));
  });
  const order = rows.map((_, place) => place);
  if (column >= 0) {
    order.sort((a, b) => compared(rows[a].order[column], rows[b].order[column], direction) || a - b);
  }
  const body = order.map((place) => {
    const row = rows[place];
    const letter = row.arm === null ? "" : letterOf(state, row.arm);
    const line = element("tr", { class: letter ? "chosen" : null }, element("td", {}, letter));
    row.cells.forEach((text, at) => {
      const aligned = { class: numeric[at] ? "number" : null };
      if (at !== named) return line.append(element("td", aligned, text));
      const inside = row.arm === null ? text : element("button", {
        type: "button", title: "Show its answers below", "data-focus": `arm ${row.arm}`,
        onclick: () => change({ arm: row.arm, page: 0 }),
      }, text);
      line.append(element("th", { scope: "row" }, mark(row.look), inside));
    });
    return line;
  });
  refocused(table, () => {
    table.tHead.replaceChildren(head);
    table.tBodies[0].replaceChildren(...body);
  });
  table.caption.textContent = title;
  document.getElementById("notes").replaceChildren(...notes.map((note) => element("li", {}, note)));
}
