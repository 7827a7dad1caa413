// Masks and attention maps on a canvas that lies over the image.
import { decodeRuns, paintRuns } from "./rle.js";

let colours = ["#ff5252"];

/** The colours of masks, by their position in the image: those of sspsam.drawing. */
export function setColours(given) {
  colours = given;
}

export const colourOf = (position) => colours[position % colours.length];

function rgb(hex) {
  const value = parseInt(hex.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/** Size of the canvas, device pixels, for an image shown in `box` CSS pixels; its shape is the image's. */
export function canvasSize(card, box, limit = 1600) {
  const scale = Math.min(box.width / card.width, box.height / card.height) * Math.min(2, devicePixelRatio * 1.5);
  const fit = Math.min(scale, limit / Math.max(card.width, card.height));
  return [Math.max(1, Math.round(card.width * fit)), Math.max(1, Math.round(card.height * fit))];
}

/** Canvas pixels of an outline two CSS pixels wide, for an image that `element` contains. */
export function lineWidth(card, element, columns) {
  const shown = card.width * Math.min(element.clientWidth / card.width, element.clientHeight / card.height);
  return Math.max(1, Math.round((2 * columns) / Math.max(1, shown)));
}

/** The mask of an annotation as a raster, remembered at the annotation; or {fault: sentence}. */
export function rasterOf(card, annotation, columns, rows) {
  const held = annotation.raster;
  if (held && (held.fault || (held.columns === columns && held.rows === rows))) return held;
  try {
    const [height, width] = annotation.size ?? [];
    const runs = decodeRuns(annotation.counts, annotation.size);
    if (card.width && (width !== card.width || height !== card.height)) {
      throw new Error(`the mask is ${width} × ${height}, the image ${card.width} × ${card.height}`);
    }
    annotation.raster = { columns, rows, pixels: paintRuns(runs, annotation.size, columns, rows) };
  } catch (error) {
    annotation.raster = { fault: error.message };
  }
  return annotation.raster;
}

/**
 * Draw masks of a card. `layers`: [{position, strength}], strength 0..1 dims those not chosen.
 * style: "both", "outline" or "none". `thickness` of the outline in canvas pixels.
 */
export function drawMasks(canvas, card, layers, { columns, rows, style, thickness = 2 }) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  if (style === "none") return;
  const scratch = new OffscreenCanvas(columns, rows);
  const pen = scratch.getContext("2d");
  for (const { position, strength } of layers) {
    const annotation = card.annotations[position];
    const { pixels, fault } = rasterOf(card, annotation, columns, rows);
    if (fault) continue;
    const colour = rgb(colourOf(position));
    const fill = style === "outline" ? 0 : Math.round(112 * strength);
    const line = Math.round(255 * (0.35 + 0.65 * strength));
    pen.putImageData(paintMask(pixels, columns, rows, colour, fill, line, thickness), 0, 0);
    context.drawImage(scratch, 0, 0);
  }
}

/** One mask as pixels: fill, outline along its inner edge, a thin dark line outside it. */
function paintMask(mask, columns, rows, [red, green, blue], fill, line, thickness) {
  const image = new ImageData(columns, rows);
  const out = image.data;
  const inside = (x, y) => x >= 0 && y >= 0 && x < columns && y < rows && mask[y * columns + x];
  const t = thickness;
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      const at = y * columns + x;
      const i = at * 4;
      if (mask[at]) {
        const edge = !(inside(x - t, y) && inside(x + t, y) && inside(x, y - t) && inside(x, y + t));
        out[i] = red;
        out[i + 1] = green;
        out[i + 2] = blue;
        out[i + 3] = edge ? line : fill;
      } else if (inside(x - 1, y) || inside(x + 1, y) || inside(x, y - 1) || inside(x, y + 1)) {
        out[i + 3] = line >> 1;
      }
    }
  }
  return image;
}

/** Position of the smallest of `positions` whose mask holds (x, y), in 0..1 of the image; or null. */
export function maskAt(card, positions, x, y) {
  let best = null;
  for (const position of positions) {
    const annotation = card.annotations[position];
    const raster = annotation.raster;
    if (!raster?.pixels) continue;
    const column = Math.min(raster.columns - 1, Math.floor(x * raster.columns));
    const row = Math.min(raster.rows - 1, Math.floor(y * raster.rows));
    if (!raster.pixels[row * raster.columns + column]) continue;
    if (best === null || annotation.area < card.annotations[best].area) best = position;
  }
  return best;
}

/** Draw a map of G × G values (0..1) over the image; `crop` is the image's part of the square. */
export function drawMap(canvas, values, [left, top, width, height], card) {
  const side = values.length;
  const small = new OffscreenCanvas(side, side);
  const image = new ImageData(side, side);
  values.flat().forEach((value, i) => image.data.set(heat(value), i * 4));
  small.getContext("2d").putImageData(image, 0, 0);
  const scale = 320 / Math.max(card.width, card.height);
  canvas.width = Math.max(1, Math.round(card.width * scale));
  canvas.height = Math.max(1, Math.round(card.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(
    small, left * side, top * side, width * side, height * side, 0, 0, canvas.width, canvas.height,
  );
}

/** Transparent dark blue over violet and orange to pale yellow, lightness rising all the way. */
function heat(value) {
  const stops = [[20, 11, 52], [101, 21, 110], [187, 55, 84], [249, 142, 9], [252, 255, 164]];
  const at = Math.min(0.9999, Math.max(0, value)) * (stops.length - 1);
  const low = Math.floor(at);
  const mixed = stops[low].map((start, i) => start + (stops[low + 1][i] - start) * (at - low));
  return [...mixed, 190];
}
