// Views of a traced prompt: all frames of a video together, or one image (a crop mosaic, a frame).

// A view is a list of images, with the number of them in a row.
function viewsOf(trace) {
  const several = trace.videos.length > 1;
  const together = trace.videos.map(({ first, count, columns }, index) => ({
    label: several ? `all frames of video ${index + 1}` : "all frames",
    parts: Array.from({ length: count }, (_, at) => first + at), columns,
  }));
  return [...together, ...trace.images.map((image, at) => ({ label: image.label, parts: [at], columns: 1 }))];
}

// Name of a view, such as "1 of 9: all frames".
function viewName(views, at) {
  return [`${at + 1} of ${views.length}`, views[at].label].filter(Boolean).join(": ");
}

async function viewFates(data, trace, { parts, columns }) {
  const images = parts.map((part) => trace.images[part]);
  const fates = await Promise.all(images.map((image) => fatesOf(data, image)));
  return fates.length === 1 ? fates[0] : joinedFates(fates, images.map((image) => image.label), columns);
}

// Fates of the patches of several images of one size, as those of one image that they tile.
function joinedFates(parts, names, across) {
  const [{ rows, columns }] = parts;
  const wide = across * columns, size = parts.length * rows * columns;
  const tiles = { rows, columns, across, names };
  const origin = Array.from({ length: size }, (_, patch) => tileOf(tiles, wide, patch));
  const joined = (value) => origin.map(({ tile, patch }) => value(parts[tile], patch, tile));
  const before = parts.map((_, tile) => parts.slice(0, tile).reduce((sum, part) => sum + part.sizes.length, 0));
  const region = new Set([...origin.keys()].filter((at) => parts[origin[at].tile].region?.has(origin[at].patch)));
  return {
    rows: size / wide, columns: wide, size, tiles,
    sizes: parts.flatMap((part) => part.sizes),
    region: region.size ? region : null,
    left: joined((part, patch) => part.left[patch]),
    key: joined((part, patch) => part.key[patch]),
    reason: joined((part, patch) => part.reason[patch]),
    group: joined((part, patch, tile) => part.group[patch] && part.group[patch] + before[tile]),
    word: joined((part, patch) => part.word[patch]),
    share: joined((part, patch) => part.share[patch]),
    largest: joined((part, patch) => part.largest[patch]),
    resident: joined((part, patch) => part.resident[patch]),
  };
}

// Tile of a patch, and the patch's row, column and index in it.
function tileOf({ rows, columns, across }, wide, patch) {
  const down = Math.floor(patch / wide), right = patch % wide;
  const row = down % rows, column = right % columns;
  const tile = Math.floor(down / rows) * across + Math.floor(right / columns);
  return { tile, row, column, patch: row * columns + column };
}

// Picture of a view, as an image or a canvas; null: not all of its images have one.
async function viewPicture(data, trace, { parts, columns }) {
  const pictures = await Promise.all(parts.map((part) => pictureOf(data, trace.images[part].picture)));
  if (pictures.length === 1 || pictures.includes(null)) return pictures.length === 1 ? pictures[0] : null;
  const [{ width, height }] = pictures;
  const canvas = element("canvas", { width: width * columns, height: height * Math.ceil(parts.length / columns) });
  const pen = canvas.getContext("2d");
  pictures.forEach((picture, tile) =>
    pen.drawImage(picture, (tile % columns) * width, Math.floor(tile / columns) * height, width, height));
  return canvas;
}
