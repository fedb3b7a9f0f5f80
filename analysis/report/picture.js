// Picture of one arm at one step: each patch is covered, marked or left unchanged.

const GONE_COLOR = "212, 212, 212", DROPPED_COLOR = "213, 94, 0";
const MERGED_COLOR = "#0072b2", KEY_COLOR = "#008f68";
const GLYPHS = {
  failedBoth: ["down", "up"], failedGlobal: ["down"], failedIndividual: ["up"], unknown: ["dot"],
};

function drawPicture(canvas, picture, fates, step, depth, cursor) {
  const scale = Math.min(window.devicePixelRatio || 1, 2);
  const width = Math.round(canvas.clientWidth * scale) || 480;
  const ratio = picture ? picture.height / picture.width : fates.rows / fates.columns;
  canvas.width = width;
  canvas.height = Math.round(width * ratio);
  const pen = canvas.getContext("2d");
  const wide = width / fates.columns, tall = canvas.height / fates.rows;
  if (picture) {
    pen.drawImage(picture, 0, 0, width, canvas.height);
  } else {
    pen.fillStyle = "#8fa3b3";
    pen.fillRect(0, 0, width, canvas.height);
  }
  const thin = Math.max(1, wide / 14);
  for (let patch = 0; patch < fates.size; patch++) {
    const x = (patch % fates.columns) * wide, y = Math.floor(patch / fates.columns) * tall;
    const state = stateOf(fates, patch, step, depth);
    const cover = (colour, share) => {
      pen.fillStyle = `rgba(${colour}, ${share})`;
      const [left, top] = [Math.round(x), Math.round(y)]; // whole pixels, so that neighbours do not overlap
      pen.fillRect(left, top, Math.round(x + wide) - left, Math.round(y + tall) - top);
    };
    if (state === "gone" || state === "none") cover(GONE_COLOR, 0.88);
    if (state === "partly") {
      cover(GONE_COLOR, 0.55);
      stroke(pen, ["flat"], x, y, wide, tall, thin, "#333333");
    }
    if (state === "dropped") {
      cover(DROPPED_COLOR, 0.55);
      stroke(pen, GLYPHS[fates.reason[patch]] ?? ["dot"], x, y, wide, tall, thin, "#ffffff");
    }
    const shown = state !== "gone" && state !== "none";
    if (!picture) {
      pen.strokeStyle = "rgba(255, 255, 255, 0.55)";
      pen.lineWidth = 1;
      pen.strokeRect(x, y, wide, tall);
    }
    if (shown && fates.key[patch] && step !== "encoder") corner(pen, x, y, wide, tall);
  }
  const living = (patch) => !["gone", "none"].includes(stateOf(fates, patch, step, depth));
  border(pen, fates, wide, tall, thin, MERGED_COLOR, [],
    (patch) => (fates.group[patch] && living(patch) ? fates.group[patch] : 0));
  if (step !== "encoder") {
    border(pen, fates, wide, tall, thin, KEY_COLOR, [], (patch) => (fates.key[patch] && living(patch) ? 1 : 0));
  }
  if (fates.region) {
    border(pen, fates, wide, tall, 1.4 * thin, "#1a1a1a", [3 * thin, 3 * thin],
      (patch) => (fates.region.has(patch) ? 1 : 0));
  }
  if (fates.tiles) separate(pen, fates.tiles, canvas, scale);
  if (cursor !== null) {
    const x = (cursor % fates.columns) * wide, y = Math.floor(cursor / fates.columns) * tall;
    for (const [colour, line] of [["#ffffff", 5 * scale], ["#1a1a1a", 2 * scale]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = line;
      pen.strokeRect(x, y, wide, tall);
    }
  }
}

// Draw a line around each tile, and its name in its corner.
function separate(pen, { across, names }, canvas, scale) {
  const wide = canvas.width / across, tall = canvas.height / Math.ceil(names.length / across);
  pen.strokeStyle = "#ffffff";
  pen.lineWidth = 4 * scale;
  pen.font = `${11 * scale}px sans-serif`;
  pen.textBaseline = "top";
  names.forEach((name, tile) => {
    const x = (tile % across) * wide, y = Math.floor(tile / across) * tall;
    pen.strokeRect(x, y, wide, tall);
    const text = name.replace("frame ", "");
    pen.fillStyle = "rgba(0, 0, 0, 0.6)";
    pen.fillRect(x, y, pen.measureText(text).width + 6 * scale, 14 * scale);
    pen.fillStyle = "#ffffff";
    pen.fillText(text, x + 3 * scale, y + 2 * scale);
  });
}

function stroke(pen, glyphs, x, y, wide, tall, thin, colour) {
  const left = x + 0.27 * wide, right = x + 0.73 * wide, top = y + 0.27 * tall, foot = y + 0.73 * tall;
  pen.strokeStyle = pen.fillStyle = colour;
  pen.lineWidth = 1.3 * thin;
  for (const glyph of glyphs) {
    pen.beginPath();
    if (glyph === "dot") {
      pen.arc(x + wide / 2, y + tall / 2, 1.5 * thin, 0, 2 * Math.PI);
      pen.fill();
      continue;
    }
    const middle = (top + foot) / 2;
    pen.moveTo(left, glyph === "down" ? top : glyph === "up" ? foot : middle);
    pen.lineTo(right, glyph === "down" ? foot : glyph === "up" ? top : middle);
    pen.stroke();
  }
}

function corner(pen, x, y, wide, tall) {
  pen.fillStyle = KEY_COLOR;
  pen.beginPath();
  pen.moveTo(x, y);
  pen.lineTo(x + 0.45 * wide, y);
  pen.lineTo(x, y + 0.45 * tall);
  pen.fill();
}

// Draw a line between neighbours with different values, on a white line that makes it visible.
function border(pen, fates, wide, tall, thin, colour, dash, value) {
  const at = (row, column) =>
    row < 0 || column < 0 || row >= fates.rows || column >= fates.columns
      ? 0 : value(row * fates.columns + column);
  const path = new Path2D();
  for (let row = 0; row <= fates.rows; row++) {
    for (let column = 0; column <= fates.columns; column++) {
      const here = at(row, column);
      if (here !== at(row - 1, column)) {
        path.moveTo(column * wide, row * tall);
        path.lineTo((column + 1) * wide, row * tall);
      }
      if (here !== at(row, column - 1)) {
        path.moveTo(column * wide, row * tall);
        path.lineTo(column * wide, (row + 1) * tall);
      }
    }
  }
  pen.setLineDash([]);
  pen.strokeStyle = "rgba(255, 255, 255, 0.85)";
  pen.lineWidth = 2.6 * thin;
  pen.stroke(path);
  pen.setLineDash(dash);
  pen.strokeStyle = colour;
  pen.lineWidth = 1.3 * thin;
  pen.stroke(path);
  pen.setLineDash([]);
}

const LEGEND = [
  ["dropped both", "dropped here: failed both tests", ["down", "up"]],
  ["dropped global", "dropped here: failed the global test", ["down"]],
  ["dropped individual", "dropped here: failed the individual test", ["up"]],
  ["dropped unknown", "dropped here, no recorded test", ["dot"]],
  ["gone", "dropped before, or in no cache", []],
  ["partly", "in the cache of some layers", ["flat"]],
  ["merged", "merged into one token", []],
  ["key", "key token", []],
  ["region", "answer region", []],
];

// Names of the marks that occur in a picture at any step.
function marksOf(fates, depth) {
  const names = new Set();
  for (let patch = 0; patch < fates.size; patch++) {
    const gone = fates.left[patch] < depth;
    const glyphs = GLYPHS[fates.reason[patch]];
    if (gone) {
      const key = (glyphs ?? ["dot"]).join("+");
      names.add({ "down+up": "dropped both", down: "dropped global", up: "dropped individual" }[key]
        ?? "dropped unknown").add("gone");
    }
    if (fates.resident[patch] === 0) names.add("gone");
    else if (fates.resident[patch] < depth) names.add("partly");
    if (fates.group[patch]) names.add("merged");
    if (fates.key[patch]) names.add("key");
    if (fates.region) names.add("region");
  }
  return names;
}

function showLegend(names) {
  const marks = LEGEND.filter(([name]) => names.has(name)).map(([name, text, glyphs]) => {
    const canvas = element("canvas", { width: 36, height: 36, "aria-hidden": "true" });
    const pen = canvas.getContext("2d");
    const [kind] = name.split(" ");
    pen.fillStyle = { dropped: `rgb(${DROPPED_COLOR})`, gone: `rgb(${GONE_COLOR})`, partly: "#c2ccd3" }[kind] ?? "#eef1f3";
    pen.globalAlpha = kind === "dropped" ? 0.8 : 1;
    pen.fillRect(0, 0, 36, 36);
    pen.globalAlpha = 1;
    stroke(pen, glyphs, 0, 0, 36, 36, 2.4, kind === "partly" ? "#333333" : "#ffffff");
    if (kind === "key") corner(pen, 0, 0, 36, 36);
    const line = { merged: MERGED_COLOR, key: KEY_COLOR, region: "#1a1a1a" }[kind];
    if (line) {
      pen.setLineDash(kind === "region" ? [6, 6] : []);
      pen.strokeStyle = line;
      pen.lineWidth = 5;
      pen.strokeRect(0, 0, 36, 36);
    }
    return element("li", {}, canvas, text);
  });
  document.getElementById("legend").replaceChildren(...marks);
}
