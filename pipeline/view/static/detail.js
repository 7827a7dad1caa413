// The dialog that shows one image: every mask toggled by itself, its signals, caption, verdicts.
import { get, picture, pictureFault } from "./api.js";
import { announce, byId, keepSetting, LABELS, make, setting, show, wholeNumber } from "./dom.js";
import { shown, valueOf } from "./grid.js";
import { canvasSize, colourOf, drawMap, drawMasks, lineWidth, maskAt, rasterOf } from "./overlay.js";

const dialog = byId("detail");
const list = byId("mask-list");
const canvas = byId("detail-canvas");
const image = byId("detail-image");
const advance = byId("advance");
const WHOLE = -1;

let card = null; // the one shown
let view = null; // {unit, style, run, state}
let visible = new Set(); // positions whose masks are drawn
let chosen = WHOLE; // position that a verdict is for, or WHOLE
let zoomed = false;

export const isOpen = () => dialog.open;
export const shownCard = () => card;

/** Set up. `actions`: {step(by), judge(card, phrase, verdict, note), undo(), closed(), style()}. */
export function setupDetail(actions) {
  byId("detail-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => { card = null; actions.closed(); });
  byId("previous").addEventListener("click", () => actions.step(-1));
  byId("next").addEventListener("click", () => actions.step(1));
  byId("undo").addEventListener("click", () => actions.undo());
  for (const button of dialog.querySelectorAll("[data-verdict]")) {
    button.addEventListener("click", () => judge(button.dataset.verdict, actions));
  }
  advance.checked = setting("advance", "") === "yes";
  advance.addEventListener("change", () => keepSetting("advance", advance.checked ? "yes" : ""));
  canvas.addEventListener("click", pickAt);
  new ResizeObserver(() => { if (card) draw(); }).observe(byId("stage"));
}

/** Show a card; the dialog opens if it is closed. `place`: "3 of 120", or "". */
export function openDetail(given, context, place) {
  const same = card?.id === given.id;
  card = given;
  view = context;
  zoomed = false;
  if (!same) byId("note").value = "";
  const drawn = view.queue ? card.hits : card.annotations.map((_, i) => i);
  visible = new Set(drawn.filter((i) => card.annotations[i].has_target));
  chosen = view.unit === "masks" && card.hits.length ? card.hits[0] : WHOLE;
  if (!dialog.open) {
    dialog.showModal();
    byId("detail-title").focus();
  }
  byId("detail-title").textContent = card.key;
  // Isolated (FSI, PDI), so that a name with bidirectional controls does not turn what stands after it.
  const size = card.width ? `${card.width} × ${card.height} px` : "";
  const parts = [place, `\u2068${card.shard}\u2069 #${card.index}`, size, card.split ?? "", card.status.replace("_", " ")];
  byId("detail-meta").textContent = parts.filter(Boolean).join(" · ");
  const fault = card.error ? `${card.error.kind}: ${card.error.message}` : "";
  byId("detail-error").textContent = fault;
  byId("detail-error").hidden = !fault;
  byId("detail-scroll").scrollTop = 0;
  showImage();
  render();
  announce(`${card.key}, ${card.annotations.length} phrases`);
}

/** The verdict that the buttons show: of the chosen mask, or of the image. */
const currentReview = () => (chosen === WHOLE ? card.review : card.annotations[chosen].review);

/** Show verdicts as they are now. */
export function updateDetail(changed) {
  if (card?.id === changed.id) render();
}

export function setStyle(style) {
  if (!card) return;
  view.style = style;
  draw();
}

/** What a key does in the dialog. Returns whether it did something. */
export function detailKey(event, actions) {
  const verdict = { a: "accept", r: "reject", f: "flag" }[event.key];
  if (verdict) judge(verdict, actions);
  else if (["j", "ArrowRight"].includes(event.key)) actions.step(1);
  else if (["k", "ArrowLeft"].includes(event.key)) actions.step(-1);
  else if (event.key === "ArrowDown") choose(chosen + 1 < card.annotations.length ? chosen + 1 : WHOLE, true);
  else if (event.key === "ArrowUp") choose(chosen === WHOLE ? card.annotations.length - 1 : chosen - 1, true);
  else if (event.key === "u" && view.queue) actions.undo();
  else if (event.key === "m") toggleAll();
  else if (event.key === "z") zoom();
  else if (event.key === "o") actions.style();
  else if (/^[1-9]$/.test(event.key) && card.annotations[event.key - 1]) toggle(event.key - 1);
  else return false;
  return true;
}

async function judge(verdict, actions) {
  const phrase = chosen === WHOLE ? null : card.annotations[chosen].phrase;
  const again = currentReview()?.verdict === verdict;
  const note = byId("note").value.trim() || null;
  const judged = actions.judge(card, phrase, again ? "none" : verdict, note);
  byId("note").value = "";
  if ((advance.checked || view.queue) && !again) actions.step(1);
  await judged;
}

function showImage() {
  const note = byId("stage-note");
  note.textContent = "";
  image.hidden = card.status === "error";
  if (image.hidden) {
    note.textContent = "This image could not be annotated.";
    image.removeAttribute("src");
    return;
  }
  const url = picture(card, 2560, view.run);
  image.alt = card.caption || `image ${card.key}`;
  image.onerror = async () => {
    const reason = await pictureFault(url);
    if (image.src.endsWith(url)) note.textContent = `Image not shown: ${reason}`;
  };
  image.src = url;
}

function render() {
  renderCaption();
  renderMasks();
  renderAttention();
  const review = currentReview();
  for (const button of dialog.querySelectorAll("[data-verdict]")) {
    button.setAttribute("aria-pressed", String(review?.verdict === button.dataset.verdict));
  }
  draw();
}

/** The caption with each phrase marked at its span. Spans count code points, as Python does. */
function renderCaption() {
  const characters = Array.from(card.caption ?? "");
  const spans = card.annotations
    .map(({ start, end }, position) => ({ start, end, position }))
    .filter(({ start, end }) => start !== null && end !== null && start >= 0 && end <= characters.length && start < end)
    .sort((a, b) => a.start - b.start || b.end - a.end);
  const parts = [];
  let at = 0;
  for (const { start, end, position } of spans) {
    if (start < at) continue; // overlaps one that is marked already
    parts.push(characters.slice(at, start).join(""));
    const mark = make("mark", { class: position === chosen ? "chosen" : null }, characters.slice(start, end).join(""));
    mark.style.setProperty("--tint", colourOf(position));
    mark.addEventListener("click", () => choose(position));
    parts.push(mark);
    at = end;
  }
  parts.push(characters.slice(at).join(""));
  byId("detail-caption").replaceChildren(...parts);
}

function renderMasks() {
  const focused = document.activeElement?.dataset?.part;
  const all = card.annotations.every((annotation, i) => visible.has(i) || !annotation.has_target);
  const rows = [row({
    position: WHOLE, name: "Whole image", checked: all && visible.size > 0, review: card.review,
    label: "Show all masks", toggled: toggleAll, disabled: !card.annotations.length,
  })];
  card.annotations.forEach((annotation, position) => {
    const { fault } = card.width ? rasterOf(card, annotation, ...stageSize()) : { fault: "the image has no size" };
    const hints = [annotation.has_target ? null : "no target", annotation.truncated ? "phrase truncated" : null, ...(annotation.aliases ?? [])];
    rows.push(row({
      position, name: annotation.phrase, hint: hints.filter(Boolean).join(" · "), checked: visible.has(position) && !fault,
      value: annotation.has_target ? show("score", annotation.score) : "", review: annotation.review, fault,
      label: `Show mask ${position + 1}: ${annotation.phrase}`, toggled: () => toggle(position), disabled: Boolean(fault),
    }, annotation));
  });
  list.replaceChildren(...rows);
  if (focused) list.querySelector(`[data-part="${focused}"]`)?.focus();
}

function row(entry, annotation) {
  const box = make("input", {
    type: "checkbox", "aria-label": entry.label, "data-part": `show${entry.position}`, onchange: entry.toggled, disabled: entry.disabled,
  });
  box.checked = entry.checked;
  const dot = make("span", { class: "dot" });
  if (entry.position !== WHOLE) {
    dot.style.color = colourOf(entry.position);
    if (annotation.has_target) dot.style.background = colourOf(entry.position);
  }
  const isChosen = entry.position === chosen;
  const pick = make("button", {
    type: "button", class: "pick", "aria-pressed": String(isChosen), "data-part": `pick${entry.position}`, onclick: () => choose(entry.position),
  }, entry.position === WHOLE ? null : dot,
  make("span", { class: "name" }, entry.name, entry.hint ? make("small", {}, entry.hint) : null),
  entry.review ? make("span", { class: `badge ${entry.review.verdict}` }, LABELS[entry.review.verdict]) : null,
  make("span", { class: "value" }, entry.value ?? ""));
  return make("li", { class: isChosen ? "chosen" : null, "data-position": String(entry.position) },
    make("div", { class: "row" }, make("label", { class: "show" }, box), pick),
    isChosen && annotation ? signals(annotation, entry.fault) : noteOf(isChosen && entry.review));
}

function noteOf(review) {
  if (!review?.note) return null;
  return make("dl", { class: "signals" }, make("div", { class: "plain" }, make("dt", {}, "note"), make("dd", {}, review.note)));
}

function signals(annotation, fault) {
  const entries = view.signals.filter((name) => name in annotation).map((name) => {
    const value = annotation[name];
    const meter = make("meter", { min: 0, max: 1, value: value ?? 0, "aria-hidden": "true" });
    return make("div", {}, make("dt", {}, LABELS[name] ?? name), meter, make("dd", {}, show(name, value)));
  });
  const plain = {
    area: `${show("area", annotation.area)}, ${show("area_fraction", valueOf(card, annotation, "area_fraction"))}`,
    box: (annotation.bbox ?? []).map((side) => Math.round(side)).join(", "),
    "target pixels": annotation.target_pixels === null ? "–" : wholeNumber(annotation.target_pixels),
    note: annotation.review?.note,
  };
  for (const [name, value] of Object.entries(plain)) {
    if (value) entries.push(make("div", { class: "plain" }, make("dt", {}, name), make("dd", {}, value)));
  }
  if (fault) entries.unshift(make("div", { class: "fault" }, make("dd", {}, `Mask not drawn: ${fault}`)));
  return make("dl", { class: "signals" }, ...entries);
}

function renderAttention() {
  const place = byId("attention");
  place.hidden = !view.attention || chosen === WHOLE;
  if (place.hidden || place.dataset.of === `${card.id} ${chosen}`) return;
  place.dataset.of = `${card.id} ${chosen}`;
  const button = make("button", { type: "button", onclick: () => loadAttention(place) }, "Show attention maps");
  place.replaceChildren(button);
}

async function loadAttention(place) {
  const [asked, position] = [card, chosen];
  place.replaceChildren(make("p", { class: "notice" }, "Asking the model …"));
  try {
    const found = await get("attention", { image: asked.id, phrase: asked.annotations[position].phrase });
    if (card !== asked || chosen !== position) return;
    const figures = found.maps.map(({ name, low, high, values }) => {
      const heat = make("canvas", { "aria-hidden": "true" });
      drawMap(heat, values, found.crop, asked);
      return make("figure", {}, make("div", { class: "pair" }, make("img", { src: picture(asked, 640, view.run), alt: "" }), heat),
        make("figcaption", {}, `${name}, ${low.toFixed(2)} to ${high.toFixed(2)}`));
    });
    const most = Math.max(...found.words.map((word) => word.weight), 1e-9);
    const words = make("p", { class: "words" }, ...found.words.filter((word) => word.token).map(({ token, weight }) => {
      const span = make("span", { title: weight.toFixed(3) }, token);
      span.style.background = `color-mix(in srgb, var(--accent) ${Math.round((60 * weight) / most)}%, transparent)`;
      return span;
    }));
    place.replaceChildren(make("div", { class: "maps" }, ...figures), words);
  } catch (error) {
    place.replaceChildren(make("p", { class: "problem" }, `No attention maps: ${error.message}`));
  }
}

function stageSize() {
  const box = byId("frame").getBoundingClientRect();
  const scale = zoomed ? Number(byId("frame").dataset.scale) : 1;
  return canvasSize(card, { width: Math.max(1, box.width / scale), height: Math.max(1, box.height / scale) });
}

function draw() {
  if (!card.width) {
    canvas.width = 1;
    return;
  }
  const [columns, rows] = stageSize();
  const order = [...visible].filter((position) => position !== chosen);
  const layers = order.map((position) => ({ position, strength: chosen === WHOLE ? 1 : 0.35 }));
  if (visible.has(chosen)) layers.push({ position: chosen, strength: 1 });
  drawMasks(canvas, card, layers, { columns, rows, style: view.style, thickness: lineWidth(card, byId("frame"), columns) });
  canvas.dataset.masks = [...visible].sort().join(" ");
  applyZoom();
}

function choose(position, scroll = false) {
  chosen = position;
  if (position !== WHOLE && card.annotations[position].has_target) visible.add(position);
  render();
  if (scroll) list.querySelector(`[data-position="${position}"]`)?.scrollIntoView({ block: "nearest" });
  announce(position === WHOLE ? "whole image" : card.annotations[position].phrase);
}

function toggle(position) {
  const on = !visible.has(position);
  if (on) visible.add(position);
  else visible.delete(position);
  render();
  announce(`${card.annotations[position].phrase} ${on ? "shown" : "hidden"}`);
}

function toggleAll() {
  const all = shown({ ...card, hits: [] }).filter((position) => card.annotations[position].has_target);
  visible = all.every((position) => visible.has(position)) ? new Set() : new Set(all);
  render();
}

function pickAt(event) {
  const box = canvas.getBoundingClientRect();
  const scale = Math.min(box.width / card.width, box.height / card.height);
  const x = (event.clientX - box.left - (box.width - card.width * scale) / 2) / (card.width * scale);
  const y = (event.clientY - box.top - (box.height - card.height * scale) / 2) / (card.height * scale);
  if (x < 0 || y < 0 || x >= 1 || y >= 1) return;
  choose(maskAt(card, [...visible], x, y) ?? WHOLE, true);
}

function zoom() {
  zoomed = !zoomed && chosen !== WHOLE && card.annotations[chosen].bbox?.[2] > 0;
  applyZoom();
}

/** Scale the frame so that the chosen mask's box fills two thirds of the stage. */
function applyZoom() {
  const frame = byId("frame");
  if (!zoomed || chosen === WHOLE) {
    zoomed = false;
    frame.style.transform = "";
    return;
  }
  const [x, y, width, height] = card.annotations[chosen].bbox;
  const [wide, high] = [frame.clientWidth, frame.clientHeight];
  const fit = Math.min(wide / card.width, high / card.height);
  const scale = Math.max(1, Math.min(12, (0.66 * wide) / (width * fit), (0.66 * high) / (height * fit)));
  const centreX = (wide - card.width * fit) / 2 + (x + width / 2) * fit;
  const centreY = (high - card.height * fit) / 2 + (y + height / 2) * fit;
  frame.dataset.scale = scale;
  frame.style.transform = `translate(${wide / 2 - centreX * scale}px, ${high / 2 - centreY * scale}px) scale(${scale})`;
}
