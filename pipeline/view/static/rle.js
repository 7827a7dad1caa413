// COCO's compressed run-length encoding, as pycocotools writes it (cocodataset/cocoapi, maskApi.c,
// rleFrString): runs of 0 and 1 in turn, starting with 0, down the columns from the left; from the
// third on each is stored as the difference to the run two before; 5 bits a character, from "0".

/** Decode `counts` of a mask of [height, width] to its run lengths. Throws Error with a sentence. */
export function decodeRuns(counts, size) {
  if (typeof counts !== "string" || !Array.isArray(size) || size.length !== 2) {
    throw new Error("the row holds no mask");
  }
  const [height, width] = size;
  const runs = [];
  let total = 0;
  for (let at = 0; at < counts.length;) {
    let value = 0;
    let shift = 0;
    let more = true;
    let bits = 0;
    while (more) {
      bits = counts.charCodeAt(at++) - 48;
      if (!(bits >= 0 && bits < 64)) throw new Error("the RLE is damaged");
      if (shift > 40) throw new Error("the RLE is damaged");
      value += (bits & 31) * 2 ** shift;
      shift += 5;
      more = (bits & 32) !== 0;
    }
    if (bits & 16) value -= 2 ** shift;
    if (runs.length > 2) value += runs[runs.length - 2];
    total += value;
    if (value < 0 || total > height * width) {
      throw new Error(`the RLE does not fit ${width} × ${height} pixels`);
    }
    runs.push(value);
  }
  if (total !== height * width) {
    throw new Error(`the RLE covers ${total} of ${width} × ${height} pixels`);
  }
  return runs;
}

/**
 * Paint runs of a [height, width] mask straight into a raster of another size.
 * Returns a Uint8Array of columns × rows, row by row, 1 inside. Every run leaves at least one pixel,
 * so that the smallest mask is seen on a thumbnail; a raster as large as the mask is exact.
 */
export function paintRuns(runs, [height, width], columns, rows) {
  const raster = new Uint8Array(columns * rows);
  const scaleX = columns / width;
  const scaleY = rows / height;
  let position = 0;
  for (let i = 0; i < runs.length; i++) {
    const end = position + runs[i];
    if (i % 2 === 1) {
      while (position < end) {
        const x = Math.floor(position / height);
        const top = position - x * height;
        const bottom = Math.min(height, end - x * height);
        const left = Math.min(columns - 1, Math.round(x * scaleX));
        const right = Math.min(columns, Math.max(left + 1, Math.round((x + 1) * scaleX)));
        const first = Math.min(rows - 1, Math.round(top * scaleY));
        const last = Math.min(rows, Math.max(first + 1, Math.round(bottom * scaleY)));
        for (let row = first; row < last; row++) raster.fill(1, row * columns + left, row * columns + right);
        position = x * height + bottom;
      }
    }
    position = end;
  }
  return raster;
}
