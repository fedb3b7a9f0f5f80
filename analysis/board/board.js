// Filters of the leaderboards, kept in the address of the page.

const form = document.getElementById("filters");

// Show an element or hide it; returns whether it is shown.
function show(element, wanted) {
  element.hidden = !wanted;
  return wanted;
}

function matches(name, value) {
  return !form[name].value || form[name].value === value;
}

// The reference stays in a table as long as another row of the table does.
function showTable(table) {
  let shown = 0;
  for (const part of table.querySelectorAll("tbody")) {
    const rows = [...part.querySelectorAll(".result")];
    const stays = rows.filter((row) => show(row, row.classList.contains("reference") ||
      !form.stage.value || row.dataset.stages.split(" ").includes(form.stage.value)));
    part.hidden = !stays.length;
    shown += stays.filter((row) => !row.classList.contains("reference")).length;
  }
  return shown;
}

function update() {
  let runs = 0, tables = 0;
  for (const board of document.querySelectorAll(".board")) {
    let inside = 0;
    const wanted = matches("model", board.dataset.model) && matches("benchmark", board.dataset.benchmark);
    for (const table of board.querySelectorAll(".budget")) {
      const count = wanted && matches("budget", table.dataset.budget) ? showTable(table) : 0;
      const whole = wanted && matches("budget", table.dataset.budget) && !form.stage.value;
      if (show(table, count > 0 || whole)) inside += 1;
      runs += count;
    }
    show(board, inside > 0);
    tables += inside;
  }
  document.getElementById("count").textContent = tables
    ? `${runs} ${runs === 1 ? "run" : "runs"} in ${tables} ${tables === 1 ? "table" : "tables"}, vanilla aside`
    : "No run passes the filters";
  hintAll();
}

function readAddress() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  for (const select of form.elements) {
    const value = parameters.get(select.name) ?? "";
    select.value = [...select.options].some((option) => option.value === value) ? value : "";
  }
  update();
}

form.addEventListener("input", () => {
  const chosen = [...form.elements].filter((select) => select.value).map((select) => [select.name, select.value]);
  history.replaceState(null, "", `#${new URLSearchParams(chosen)}`);
  update();
});
form.addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", readAddress);
followHints();
readAddress();
document.documentElement.dataset.ready = "yes";
