// The summary table, sorted by any column; a click on a row selects its arm. Also makes elements.

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// Mark of a method, the same as in all figures.
function mark(look) {
  return svg("svg", { class: "look", viewBox: "-1.2 -1.2 2.4 2.4", "aria-hidden": "true" },
    svg("path", { d: look.outline, fill: look.color }));
}

function screenReaderText(text) {
  return element("span", { class: "screen-reader" }, text);
}

// Rebuild a part of the page and give the focus back to the element that had it.
function keepFocus(container, rebuild) {
  const name = container.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  rebuild();
  if (name) container.querySelector(`[data-focus="${CSS.escape(name)}"]`)?.focus();
}

// Rows without a value are last in either direction; texts come after numbers.
function compareValues(first, second, direction) {
  if (first === null || second === null) return (first === null) - (second === null);
  if (typeof first !== typeof second) return typeof first === "number" ? -1 : 1;
  const order = typeof first === "number" ? first - second : first.localeCompare(second);
  return direction * order;
}

function letterOf(state, key) {
  return key === state.arm ? "A" : key === state.other ? "B" : "";
}

function showSummary(data, state, change) {
  const { title, heads, rows, notes } = data.summary;
  const table = document.getElementById("summary");
  const named = heads.indexOf("method");
  const [column, direction] = state.sort ?? [-1, 1];
  const numeric = heads.map((_, index) => rows.some((row) => typeof row.order[index] === "number"));
  const head = element("tr", {}, element("th", { scope: "col" }, screenReaderText("shown as")));
  heads.forEach((name, index) => {
    const sorted = index === column ? (direction > 0 ? "ascending" : "descending") : "none";
    const first = numeric[index] ? -1 : 1; // largest first
    const next = index === column ? -direction : first;
    head.append(element("th", { scope: "col", "aria-sort": sorted, class: numeric[index] ? "number" : null },
      element("button", {
        type: "button", "data-focus": `sort ${index}`, onclick: () => change({ sort: [index, next] }),
      }, name.replaceAll(" %", "\u00a0%"))));
  });
  const order = rows.map((_, index) => index);
  if (column >= 0) {
    order.sort((a, b) => compareValues(rows[a].order[column], rows[b].order[column], direction) || a - b);
  }
  const body = order.map((index) => {
    const row = rows[index];
    const letter = row.arm === null ? "" : letterOf(state, row.arm);
    const line = element("tr", { class: letter ? "chosen" : null }, element("td", {}, letter));
    row.cells.forEach((text, at) => {
      const aligned = { class: numeric[at] ? "number" : null };
      if (at !== named) return line.append(element("td", aligned, text));
      const inside = row.arm === null ? text : element("button", {
        type: "button", title: "Show the answers of this arm below", "data-focus": `arm ${row.arm}`,
        onclick: () => change({ arm: row.arm, page: 0 }),
      }, text);
      line.append(element("th", { scope: "row" }, mark(row.look), inside));
    });
    return line;
  });
  keepFocus(table, () => {
    table.tHead.replaceChildren(head);
    table.tBodies[0].replaceChildren(...body);
  });
  table.caption.textContent = title;
  document.getElementById("notes").replaceChildren(...notes.map((note) => element("li", {}, note)));
}
