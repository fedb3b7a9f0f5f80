// The data of the page: what was written into it, inflated, and questions put to it.
// Knows nothing about the document but where the data lie.

const PLANES = ["left", "reason", "group", "groupHigh", "word", "share", "largest", "resident"];
const KEY_BIT = 128, NO_WORD = 255;
const ENCODER = -2; // left in the vision encoder

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
  const data = JSON.parse(new TextDecoder().decode(await inflated("told")));
  data.size = data.samples.id.length;
  data.place = new Map(data.samples.id.map((id, place) => [id, place]));
  data.arm = new Map(data.arms.map((arm) => [arm.key, arm]));
  data.fates = null; // inflated when a sample is first opened
  data.pictures = null;
  data.images = new Map();
  for (const arm of data.arms) {
    arm.unit = arm.score.every((score) => score === null || (score >= 0 && score <= 1));
  }
  data.search = data.samples.question.map((question, place) => {
    const said = new Set(data.arms.map((arm) => answerOf(data, arm, place)));
    return [question, data.samples.target[place], ...said].join("\n").toLowerCase();
  });
  return data;
}

function answerOf(data, arm, place) {
  return arm.answer[place] === null ? "" : data.texts[arm.answer[place]];
}

function tokensOf(data, arm, place) {
  return arm.tokens[place] === null ? [] : data.profiles[arm.tokens[place]];
}

function residentOf(data, arm, place) {
  return arm.resident[place] === null ? [] : data.profiles[arm.resident[place]];
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

// right, wrong, partly; "score" where scores are no shares, "" where the arm was not asked
function verdict(arm, place) {
  const score = arm.score[place];
  if (score === null) return "";
  if (!arm.unit) return "score";
  return score === 1 ? "right" : score === 0 ? "wrong" : "partly";
}

function asked(data, place) {
  return data.arms.filter((arm) => arm.score[place] !== null);
}

function disagree(data, place) {
  return new Set(asked(data, place).map((arm) => arm.score[place])).size > 1;
}

function traced(data, place) {
  return data.arms.some((arm) => place in arm.traces);
}

function attention(code) {
  return code ? 10 ** (((code - 1) / 254 - 1) * 6) : null;
}

// One image of a trace, with a number a patch in each of its planes.
async function fatesOf(data, image) {
  data.fates ??= new Uint8Array(await inflated("kept"));
  const size = image.grid[0] * image.grid[1];
  const plane = Object.fromEntries(PLANES.map((name, index) => {
    const start = image.at + index * size;
    return [name, data.fates.subarray(start, start + size)];
  }));
  const each = (value) => Array.from({ length: size }, (_, patch) => value(patch));
  return {
    rows: image.grid[0],
    columns: image.grid[1],
    size,
    sizes: image.sizes,
    region: image.region === null ? null : new Set(image.region),
    left: each((patch) => plane.left[patch] + ENCODER),
    key: each((patch) => (plane.reason[patch] & KEY_BIT) > 0),
    reason: each((patch) => REASONS[plane.reason[patch] & ~KEY_BIT]),
    group: each((patch) => plane.group[patch] + 256 * plane.groupHigh[patch]),
    word: each((patch) => (plane.word[patch] === NO_WORD ? null : plane.word[patch])),
    share: each((patch) => attention(plane.share[patch])),
    largest: each((patch) => attention(plane.largest[patch])),
    resident: each((patch) => plane.resident[patch]),
  };
}

// The decoded picture of a number; null: none.
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
