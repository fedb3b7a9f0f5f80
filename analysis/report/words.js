// What is said of steps, patches and verdicts, in words. Text is a function of the data.

const MARK = { right: "✓", wrong: "✗", partly: "~", score: "", "": "–" };

// The steps of the slider: the encoder, the input, after each layer, decoding.
function stepsOf(depth) {
  return ["encoder", ...Array.from({ length: depth + 1 }, (_, place) => String(place - 1)), "decode"];
}

function stepName(step) {
  if (step === "encoder") return "vision encoder";
  if (step === "decode") return "KV cache while decoding";
  return step === "-1" ? "input, before layer 0" : `after layer ${step}`;
}

function number(value, digits = 4) {
  return String(Number(value.toPrecision(digits)));
}

// "84 of 576 tokens": what is left at a step, of all the patches; `handed`: by the encoder.
function leftWords(step, patches, handed, tokens, resident) {
  if (step === "encoder") return `${patches} patches to ${handed} tokens`;
  if (step === "decode") return `${number(mean(resident))} of ${patches} tokens a layer`;
  const layer = Math.min(Number(step) + 1, tokens.length - 1);
  return `${tokens[layer]} of ${patches} tokens`;
}

const DECIDED = {
  unknown: "",
  failedBoth: "both tests failed",
  failedGlobal: "the global test failed, the only one in use",
  failedIndividual: "the individual test failed, the only one in use",
  passedBoth: "passed both tests",
  passedGlobal: "saved by the global test",
  passedIndividual: "saved by the individual test",
  key: "a key token, never dropped",
  fewest: "failed, kept as one of the fewest",
};

function clean(word) {
  return word.replace(/[▁Ġ]/g, " ").trim() || word;
}

// Where a patch is at a step: alive, dropped (here), gone (before), or in the cache: held, partly, none.
function stateOf(fates, patch, step, depth) {
  const left = fates.left[patch];
  if (step === "encoder") return left === ENCODER ? "dropped" : "alive";
  if (step === "decode") {
    const layers = fates.resident[patch];
    return layers === 0 ? "none" : layers < depth ? "partly" : "held";
  }
  const layer = Math.min(Number(step), depth - 1);
  return left < layer ? "gone" : left === layer ? "dropped" : "alive";
}

function endOf(arm, fates, patch, depth) {
  const left = fates.left[patch];
  const { vision, prefill } = arm.stages;
  if (left === ENCODER) return `left in the vision encoder${vision ? ` (${vision})` : ""}`;
  const why = DECIDED[fates.reason[patch]];
  if (left === depth) return `stayed to the last layer${why ? `: ${why}` : ""}`;
  const stage = prefill ?? vision;
  const by = why || (stage ? `by ${stage}` : "");
  const when = left < 0 ? "before layer 0" : `after layer ${left}`;
  return `dropped ${when}${by ? `: ${by}` : ""}`;
}

// The whole life of one patch.
function patchWords(data, arm, trace, fates, patch, depth) {
  const row = Math.floor(patch / fates.columns), column = patch % fates.columns;
  const told = [`Row ${row + 1}, column ${column + 1}`];
  const group = fates.group[patch];
  if (group) told.push(`merged with ${fates.sizes[group - 1] - 1} more into one token`);
  if (fates.key[patch] && fates.reason[patch] !== "key") told.push("carried by a key token");
  told.push(endOf(arm, fates, patch, depth));
  if (fates.share[patch] !== null) {
    const limit = trace.gamma === null ? "" : `, gamma ${number(trace.gamma, 3)}`;
    told.push(`about ${number(fates.share[patch], 2)} of all attention${limit}`);
    const alpha = trace.alpha === null ? "" : `, alpha ${number(trace.alpha, 3)}`;
    const words = data.words[trace.words] ?? [];
    const word = fates.word[patch] === null ? undefined : words[fates.word[patch]];
    const from = word === undefined ? "" : ` from “${clean(word)}”`;
    told.push(`at most about ${number(fates.largest[patch], 2)}${from}${alpha}`);
  }
  told.push(`in the KV cache of ${fates.resident[patch]} of ${depth} layers`);
  if (fates.region?.has(patch)) told.push("holds the answer");
  return `${told.join("; ")}.`;
}

// The picture at a step, for those who do not see it.
function pictureWords(arm, fates, step, depth) {
  const count = {}, why = {};
  for (let patch = 0; patch < fates.size; patch++) {
    const state = stateOf(fates, patch, step, depth);
    count[state] = (count[state] ?? 0) + 1;
    if (state === "dropped") {
      const reason = DECIDED[fates.reason[patch]] || "no test on record";
      why[reason] = (why[reason] ?? 0) + 1;
    }
  }
  const names = {
    alive: "alive", dropped: "dropped here", gone: "gone before",
    held: "held in every layer", partly: "held in some layers", none: "held in none",
  };
  const told = Object.keys(names).filter((state) => count[state])
    .map((state) => `${count[state]} ${names[state]}`);
  const keys = fates.key.filter(Boolean).length;
  if (keys) told.push(`${keys} of key tokens`);
  if (fates.sizes.length) told.push(`${fates.sizes.length} merged groups`);
  const reasons = count.dropped && step !== "encoder"
    ? ` Dropped: ${Object.entries(why).map(([name, n]) => `${n} ${name}`).join(", ")}.` : "";
  return `${arm.name}, ${stepName(step)}: of ${fates.size} patches ${told.join(", ")}.${reasons}`;
}
