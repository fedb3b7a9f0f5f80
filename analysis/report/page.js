// The state of the page, which is stored in its address, and the keyboard commands.

const DEFAULTS = {
  sample: "", arm: "", other: "", layer: "", image: 0, type: "", status: "", q: "",
  disagree: false, traced: false, page: 0, sort: null,
};
const FILTERS = ["type", "status", "q", "disagree", "traced", "arm", "other"];

function defaultArms(data) {
  const reduced = data.arms.filter((arm) => arm.key.split("-")[0] !== "vanilla");
  const tracedArms = reduced.filter((arm) => Object.keys(arm.traces).length);
  const pool = tracedArms.length ? tracedArms : reduced.length ? reduced : data.arms;
  const arm = pool.find((item) => item.key.startsWith("mustdrop")) ?? pool[0];
  const other = data.arms.find((item) => item !== arm) ?? arm;
  return { arm: arm.key, other: other.key };
}

function stateOfAddress(data, defaults) {
  const parameters = new URLSearchParams(location.hash.slice(1));
  const state = { ...defaults };
  for (const name of ["sample", "arm", "other", "layer", "type", "status", "q"]) {
    state[name] = parameters.get(name) ?? defaults[name];
  }
  for (const name of ["disagree", "traced"]) state[name] = parameters.get(name) === "yes";
  for (const name of ["image", "page"]) state[name] = Math.max(0, parseInt(parameters.get(name), 10) || 0);
  const sorted = /^(\d+)\.(up|down)$/.exec(parameters.get("sort") ?? "");
  const column = sorted ? Number(sorted[1]) : -1;
  state.sort = sorted && column < data.summary.heads.length ? [column, sorted[2] === "up" ? 1 : -1] : null;
  for (const name of ["arm", "other"]) if (!data.arm.has(state[name])) state[name] = defaults[name];
  if (!data.indexOf.has(state.sample)) state.sample = "";
  if (!["right", "wrong", "gained", "lost"].includes(state.status)) state.status = "";
  if (!data.samples.type.includes(state.type)) state.type = "";
  return state;
}

function addressOf(state, defaults) {
  const parameters = new URLSearchParams();
  for (const name of Object.keys(DEFAULTS)) {
    const value = state[name];
    if (value === defaults[name]) continue;
    if (name === "sort") parameters.set(name, `${value[0]}.${value[1] > 0 ? "up" : "down"}`);
    else parameters.set(name, value === true ? "yes" : String(value));
  }
  if (state.sample && !parameters.has("arm")) parameters.set("arm", state.arm);
  return `#${parameters.toString().replaceAll("%3A", ":").replaceAll("%2F", "/")}`;
}

async function start() {
  const data = await readData();
  const defaults = { ...DEFAULTS, ...defaultArms(data) };
  let state = stateOfAddress(data, defaults);
  let samples = matchingSamples(data, state);
  const title = document.title;

  // `step`: whether to keep the old state for the browser's back button.
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
    if (differs(FILTERS)) samples = matchingSamples(data, state);
    const opened = state.sample !== "";
    document.getElementById("overview").hidden = opened;
    document.getElementById("sample").hidden = !opened;
    document.title = opened ? `${state.sample} · ${title}` : title;
    if (!opened) {
      syncFilters(state);
      if (differs(["sort", "arm", "other", "sample"])) showSummary(data, state, change);
      if (differs([...FILTERS, "page", "sample", "sort", "layer"])) {
        showList(data, state, samples, (more) => addressOf({ ...state, ...more }, defaults), change);
      }
    } else if (differs(["sample", "arm", "other", "image"])) {
      showPosition();
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

  function sequence() {
    const index = data.indexOf.get(state.sample);
    return samples.includes(index) ? samples : [...Array(data.size).keys()];
  }

  function showPosition() {
    const all = sequence(), at = all.indexOf(data.indexOf.get(state.sample));
    const filtered = all.length < data.size ? ", filtered" : "";
    document.getElementById("position").textContent = `${at + 1} of ${all.length}${filtered}`;
    document.getElementById("previous").disabled = at === 0;
    document.getElementById("next").disabled = at === all.length - 1;
  }

  function go(by) {
    const all = sequence(), next = all[all.indexOf(data.indexOf.get(state.sample)) + by];
    if (next !== undefined) change({ sample: data.samples.id[next] }, true);
  }

  function close() {
    const at = samples.indexOf(data.indexOf.get(state.sample));
    change({ sample: "", page: at < 0 ? state.page : Math.floor(at / PAGE_SIZE) }, true);
  }

  fillFilters(data, state, change);
  document.querySelector(".skip").onclick = (event) => {
    event.preventDefault(); // the address stores the state
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
  followHints();
  addEventListener("resize", () => {
    if (state.sample) for (const panel of view.panels) redraw(panel, null);
  });
  show(null);
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => {
  // Without a message the page would be empty; the browser probably cannot inflate the data.
  const message = document.createElement("p");
  message.setAttribute("role", "alert");
  message.textContent = `This page could not be read: ${error.message}. It needs a browser of 2023 or later.`;
  document.getElementById("main").prepend(message);
  throw error;
});
