// Texts about steps, patches and verdicts. A text depends only on the data.

const MARK = { right: "✓", wrong: "✗", partly: "~", score: "", "": "–" };

// Steps of the slider: encoder, input, after each layer, decoding.
function stepsOf(depth) {
  return ["encoder", ...Array.from({ length: depth + 1 }, (_, index) => String(index - 1)), "decode"];
}

function stepName(step) {
  if (step === "encoder") return "vision encoder";
  if (step === "decode") return "KV cache while decoding";
  return step === "-1" ? "input, before layer 0" : `after layer ${step}`;
}

function number(value, digits = 4) {
  return String(Number(value.toPrecision(digits)));
}

// Number of tokens left at a step, such as "84 of 576 tokens". `encoded`: tokens of the encoder,
// which show patches; `slots`: vision tokens of the prompt, newlines included.
function leftWords(step, patches, encoded, slots, tokens, resident) {
  if (step === "encoder") return `${patches} patches to ${encoded} tokens`;
  if (step === "decode") return `${number(mean(resident))} of ${slots} tokens per layer`;
  const layer = Math.min(Number(step) + 1, tokens.length - 1);
  return `${tokens[layer]} of ${slots} tokens`;
}

const REASON_TEXTS = {
  unknown: "",
  failedBoth: "failed both tests",
  failedGlobal: "failed the global test, the only one in use",
  failedIndividual: "failed the individual test, the only one in use",
  passedBoth: "passed both tests",
  passedGlobal: "passed the global test",
  passedIndividual: "passed the individual test",
  key: "a key token, never dropped",
  fewest: "failed the tests, but kept to reach the minimum number of tokens",
};

function clean(word) {
  return word.replace(/[▁Ġ]/g, " ").trim() || word;
}

// State of a patch at a step: alive, dropped (here), gone (dropped before), or the layers whose cache
// contains it: held (all), partly (some), none.
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
  if (left === ENCODER) return `dropped in the vision encoder${vision ? ` (${vision})` : ""}`;
  const why = REASON_TEXTS[fates.reason[patch]];
  if (left === depth) return `kept to the last layer${why ? `: ${why}` : ""}`;
  const stage = prefill ?? vision;
  const by = why || (stage ? `by ${stage}` : "");
  const when = left < 0 ? "before layer 0" : `after layer ${left}`;
  return `dropped ${when}${by ? `: ${by}` : ""}`;
}

// Position of a patch: its row and column, and its frame where all frames are shown.
function positionWords(fates, patch) {
  if (!fates.tiles) return `Row ${Math.floor(patch / fates.columns) + 1}, column ${(patch % fates.columns) + 1}`;
  const { tile, row, column } = tileOf(fates.tiles, fates.columns, patch);
  const name = fates.tiles.names[tile];
  return `${name[0].toUpperCase()}${name.slice(1)}, row ${row + 1}, column ${column + 1}`;
}

// Full fate of one patch.
function patchWords(data, arm, trace, fates, patch, depth) {
  const parts = [positionWords(fates, patch)];
  const group = fates.group[patch];
  if (group) parts.push(`merged with ${fates.sizes[group - 1] - 1} more into one token`);
  if (fates.key[patch] && fates.reason[patch] !== "key") parts.push("carried by a key token");
  parts.push(endOf(arm, fates, patch, depth));
  if (fates.share[patch] !== null) {
    const limit = trace.gamma === null ? "" : `, gamma ${number(trace.gamma, 3)}`;
    parts.push(`received about ${number(fates.share[patch], 2)} of all attention${limit}`);
    const alpha = trace.alpha === null ? "" : `, alpha ${number(trace.alpha, 3)}`;
    const words = data.words[trace.words] ?? [];
    const word = fates.word[patch] === null ? undefined : words[fates.word[patch]];
    const from = word === undefined ? "" : ` (“${clean(word)}”)`;
    parts.push(`largest attention from one word${from}: about ${number(fates.largest[patch], 2)}${alpha}`);
  }
  parts.push(`in the KV cache of ${fates.resident[patch]} of ${depth} layers`);
  if (fates.region?.has(patch)) parts.push("in the answer region");
  return `${parts.join("; ")}.`;
}

// Description of the picture at a step, for screen readers.
function pictureWords(arm, fates, step, depth) {
  const count = {}, reasonCounts = {};
  for (let patch = 0; patch < fates.size; patch++) {
    const state = stateOf(fates, patch, step, depth);
    count[state] = (count[state] ?? 0) + 1;
    if (state === "dropped") {
      const reason = REASON_TEXTS[fates.reason[patch]] || "no recorded test";
      reasonCounts[reason] = (reasonCounts[reason] ?? 0) + 1;
    }
  }
  const names = {
    alive: "alive", dropped: "dropped here", gone: "dropped before",
    held: "in the cache of every layer", partly: "in the cache of some layers", none: "in no cache",
  };
  const parts = Object.keys(names).filter((state) => count[state])
    .map((state) => `${count[state]} ${names[state]}`);
  const keys = fates.key.filter(Boolean).length;
  if (keys) parts.push(`${keys} carried by key tokens`);
  if (fates.sizes.length) parts.push(`${fates.sizes.length} merged groups`);
  const reasons = count.dropped && step !== "encoder"
    ? ` Dropped: ${Object.entries(reasonCounts).map(([name, n]) => `${n} ${name}`).join(", ")}.` : "";
  return `${arm.name}, ${stepName(step)}: of ${fates.size} patches ${parts.join(", ")}.${reasons}`;
}
