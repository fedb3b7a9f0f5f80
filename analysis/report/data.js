// Read the data embedded in the page, and answer queries about them.
// Knows nothing about the document except the ids of the data elements.

const PLANES = ["left", "reason", "group", "groupHigh", "word", "share", "largest", "resident"];
const KEY_BIT = 128, NO_WORD = 255;
const ENCODER = -2; // dropped in the vision encoder

const REASONS = [
  "unknown", "failedBoth", "failedGlobal", "failedIndividual",
  "passedBoth", "passedGlobal", "passedIndividual", "key", "fewest",
];

function textOf(id) {
  return document.getElementById(id).textContent;
}

async function inflated(id) {
  const binary = atob(textOf(id));
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

async function readData() {
  const data = JSON.parse(new TextDecoder().decode(await inflated("data")));
  data.size = data.samples.id.length;
  data.indexOf = new Map(data.samples.id.map((id, index) => [id, index]));
  data.arm = new Map(data.arms.map((arm) => [arm.key, arm]));
  data.fates = null; // inflated when a sample is first opened
  data.pictures = null;
  data.images = new Map();
  for (const arm of data.arms) {
    arm.unit = arm.score.every((score) => score === null || (score >= 0 && score <= 1));
  }
  data.search = data.samples.question.map((question, index) => {
    const answers = new Set(data.arms.map((arm) => answerOf(data, arm, index)));
    return [question, data.samples.target[index], ...answers].join("\n").toLowerCase();
  });
  return data;
}

function answerOf(data, arm, index) {
  return arm.answer[index] === null ? "" : data.texts[arm.answer[index]];
}

function tokensOf(data, arm, index) {
  return arm.tokens[index] === null ? [] : data.profiles[arm.tokens[index]];
}

function residentOf(data, arm, index) {
  return arm.resident[index] === null ? [] : data.profiles[arm.resident[index]];
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

// "right", "wrong" or "partly"; "score" if scores are not in [0, 1]; "" if the arm lacks the sample.
function verdict(arm, index) {
  const score = arm.score[index];
  if (score === null) return "";
  if (!arm.unit) return "score";
  return score === 1 ? "right" : score === 0 ? "wrong" : "partly";
}

function armsWith(data, index) {
  return data.arms.filter((arm) => arm.score[index] !== null);
}

function disagree(data, index) {
  return new Set(armsWith(data, index).map((arm) => arm.score[index])).size > 1;
}

function traced(data, index) {
  return data.arms.some((arm) => index in arm.traces);
}

function attention(code) {
  return code ? 10 ** (((code - 1) / 254 - 1) * 6) : null;
}

// Unpack one image of a trace: each quantity has one value per patch.
async function fatesOf(data, image) {
  data.fates ??= new Uint8Array(await inflated("packed-fates"));
  const size = image.grid[0] * image.grid[1];
  const plane = Object.fromEntries(PLANES.map((name, index) => {
    const start = image.start + index * size;
    return [name, data.fates.subarray(start, start + size)];
  }));
  const forPatches = (value) => Array.from({ length: size }, (_, patch) => value(patch));
  return {
    rows: image.grid[0],
    columns: image.grid[1],
    size,
    sizes: image.sizes,
    region: image.region === null ? null : new Set(image.region),
    left: forPatches((patch) => plane.left[patch] + ENCODER),
    key: forPatches((patch) => (plane.reason[patch] & KEY_BIT) > 0),
    reason: forPatches((patch) => REASONS[plane.reason[patch] & ~KEY_BIT]),
    group: forPatches((patch) => plane.group[patch] + 256 * plane.groupHigh[patch]),
    word: forPatches((patch) => (plane.word[patch] === NO_WORD ? null : plane.word[patch])),
    share: forPatches((patch) => attention(plane.share[patch])),
    largest: forPatches((patch) => attention(plane.largest[patch])),
    resident: forPatches((patch) => plane.resident[patch]),
  };
}

// Decoded picture with this number; null: no picture.
async function pictureOf(data, number) {
  if (number === null) return null;
  data.pictures ??= textOf("pictures").split(",");
  if (!data.images.has(number)) {
    const image = new Image();
    image.src = `data:image/webp;base64,${data.pictures[number]}`;
    data.images.set(number, image.decode().then(() => image));
  }
  return data.images.get(number);
}
