// The state of the page, kept in its address, and what the keys do.

const DEFAULTS = {
  sample: "", arm: "", beside: "", layer: "", image: 0, type: "", status: "", q: "",
  disagree: false, traced: false, page: 0, sort: null,
};
const FILTERS = ["type", "status", "q", "disagree", "traced", "arm", "beside"];

function chosenFirst(data) {
  const drops = data.arms.filter((arm) => arm.key.split("-")[0] !== "vanilla");
  const seen = drops.filter((arm) => Object.keys(arm.traces).length);
  const pool = seen.length ? seen : drops.length ? drops : data.arms;
  const arm = pool.find((one) => one.key.startsWith("mustdrop")) ?? pool[0];
  const beside = data.arms.find((one) => one !== arm) ?? arm;
  return { arm: arm.key, beside: beside.key };
}

function stateOfAddress(data, defaults) {
  const found = new URLSearchParams(location.hash.slice(1));
  const state = { ...defaults };
  for (const name of ["sample", "arm", "beside", "layer", "type", "status", "q"]) {
    state[name] = found.get(name) ?? defaults[name];
  }
  for (const name of ["disagree", "traced"]) state[name] = found.get(name) === "yes";
  for (const name of ["image", "page"]) state[name] = Math.max(0, parseInt(found.get(name), 10) || 0);
  const sorted = /^(\d+)\.(up|down)$/.exec(found.get("sort") ?? "");
  const column = sorted ? Number(sorted[1]) : -1;
  state.sort = sorted && column < data.summary.heads.length ? [column, sorted[2] === "up" ? 1 : -1] : null;
  for (const name of ["arm", "beside"]) if (!data.arm.has(state[name])) state[name] = defaults[name];
  if (!data.place.has(state.sample)) state.sample = "";
  if (!["right", "wrong", "gained", "lost"].includes(state.status)) state.status = "";
  if (!data.samples.type.includes(state.type)) state.type = "";
  return state;
}

function addressOf(state, defaults) {
  const told = new URLSearchParams();
  for (const name of Object.keys(DEFAULTS)) {
    const value = state[name];
    if (value === defaults[name]) continue;
    if (name === "sort") told.set(name, `${value[0]}.${value[1] > 0 ? "up" : "down"}`);
    else told.set(name, value === true ? "yes" : String(value));
  }
  if (state.sample && !told.has("arm")) told.set("arm", state.arm);
  return `#${told.toString().replaceAll("%3A", ":").replaceAll("%2F", "/")}`;
}

async function start() {
  const data = await readData();
  const defaults = { ...DEFAULTS, ...chosenFirst(data) };
  let state = stateOfAddress(data, defaults);
  let found = passing(data, state);
  const title = document.title;

  // `step`: keep the old state for the browser's back button
  function change(changes, step = false) {
    const before = state;
    state = { ...state, ...changes };
    const address = addressOf(state, defaults);
    history[step ? "pushState" : "replaceState"](null, "", address);
    show(before);
  }

  function show(before) {
    const differs = (names) => !before || names.some((name) => before[name] !== state[name]);
    view.state = state;
    if (differs(FILTERS)) found = passing(data, state);
    const opened = state.sample !== "";
    document.getElementById("overview").hidden = opened;
    document.getElementById("sample").hidden = !opened;
    document.title = opened ? `${state.sample} · ${title}` : title;
    if (!opened) {
      syncFilters(state);
      if (differs(["sort", "arm", "beside", "sample"])) showSummary(data, state, change);
      if (differs([...FILTERS, "page", "sample", "sort", "layer"])) {
        showList(data, state, found, (more) => addressOf({ ...state, ...more }, defaults), change);
      }
    } else if (differs(["sample", "arm", "beside", "image"])) {
      showPlace();
      showSample(data, state, change);
    } else {
      showStep(data);
    }
    if (before && before.sample !== state.sample) refocus(before.sample);
    hintAll();
  }

  function refocus(closed) {
    if (state.sample) {
      document.getElementById("question").focus({ preventScroll: true });
      window.scrollTo(0, 0);
    } else {
      const link = [...document.querySelectorAll("[data-sample]")].find((a) => a.dataset.sample === closed);
      (link ?? document.getElementById("main")).focus();
    }
  }

  function walked() {
    const place = data.place.get(state.sample);
    return found.includes(place) ? found : [...Array(data.size).keys()];
  }

  function showPlace() {
    const all = walked(), at = all.indexOf(data.place.get(state.sample));
    const filtered = all.length < data.size ? ", filtered" : "";
    document.getElementById("place").textContent = `${at + 1} of ${all.length}${filtered}`;
    document.getElementById("previous").disabled = at === 0;
    document.getElementById("next").disabled = at === all.length - 1;
  }

  function go(by) {
    const all = walked(), next = all[all.indexOf(data.place.get(state.sample)) + by];
    if (next !== undefined) change({ sample: data.samples.id[next] }, true);
  }

  function close() {
    const at = found.indexOf(data.place.get(state.sample));
    change({ sample: "", page: at < 0 ? state.page : Math.floor(at / PAGE) }, true);
  }

  fillFilters(data, state, change);
  document.querySelector(".skip").onclick = (event) => {
    event.preventDefault(); // the address holds the state
    document.getElementById("main").focus();
  };
  document.getElementById("close").onclick = close;
  document.getElementById("previous").onclick = () => go(-1);
  document.getElementById("next").onclick = () => go(1);
  document.getElementById("layer").addEventListener("input", (event) =>
    change({ layer: view.steps[Number(event.target.value)] }));
  document.addEventListener("keydown", (event) => {
    if (!state.sample || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("select, input:not([type=range])")) return;
    if (event.key === "Escape") close();
    if (event.key === "j") go(1);
    if (event.key === "k") go(-1);
  });
  addEventListener("popstate", () => {
    const before = state;
    state = stateOfAddress(data, defaults);
    show(before);
  });
  for (const wide of document.querySelectorAll(".wide")) {
    wide.addEventListener("scroll", () => hint(wide), { passive: true });
  }
  addEventListener("resize", () => {
    hintAll();
    if (state.sample) for (const panel of view.panels) redraw(panel, null);
  });
  show(null);
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => {
  // an empty page says nothing; most likely the browser cannot inflate what is in it
  const told = document.createElement("p");
  told.setAttribute("role", "alert");
  told.textContent = `This page could not be read: ${error.message}. It needs a browser of 2023 or later.`;
  document.getElementById("main").prepend(told);
  throw error;
});
