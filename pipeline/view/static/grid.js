// The grid of cards.
import { picture, pictureFault } from "./api.js";
import { byId, count, LABELS, make, show } from "./dom.js";
import { canvasSize, colourOf, drawMasks, lineWidth } from "./overlay.js";

const grid = byId("grid");
const visible = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) entry.target.draw();
}, { rootMargin: "300px" });

/** Positions that a card shows: those that matched the filters, or else all. */
export const shown = (card) => (card.hits.length ? card.hits : card.annotations.map((_, i) => i));

/** The verdict that a card stands for: in masks mode its mask's, else the image's. */
export function cardReview(card, unit) {
  if (unit === "masks") return card.annotations[card.hits[0]]?.review ?? card.review;
  return card.review;
}

/** Replace the cards. `view`: {unit, sort, style, run, filters}. `opened(i)` is called for the one chosen. */
export function fillGrid(cards, view, opened) {
  visible.disconnect();
  if (!cards.length) {
    grid.replaceChildren(make("li", { class: "nothing" },
      make("p", {}, view.filters ? "Nothing matches these filters." : "There is no image here yet."),
      view.filters ? make("button", { type: "reset", form: "filter-form" }, "Clear all filters") : null));
    return;
  }
  grid.replaceChildren(...cards.map((card, i) => make("li", {}, cardElement(card, view, () => opened(i)))));
}

/** Draw all masks again, say in another style. */
export function redraw(cards, view) {
  [...grid.querySelectorAll(".media")].forEach((media, i) => {
    media.draw = () => drawCard(media, cards[i], view);
    visible.unobserve(media);
    visible.observe(media);
  });
}

/** Show a card's verdicts as they are now. */
export function updateCard(i, card, unit) {
  const button = grid.querySelectorAll(".card")[i];
  if (button) mark(button, card, unit);
}

export const focusCard = (i) => grid.querySelectorAll(".card")[i]?.focus();

/** Index of the card that has the focus, or -1. */
export const focusedCard = () => [...grid.querySelectorAll(".card")].indexOf(document.activeElement);

/** Move the focus by an arrow key. Returns whether it did. */
export function moveFocus(key) {
  const cards = [...grid.querySelectorAll(".card")];
  const at = cards.indexOf(document.activeElement);
  if (at < 0) return false;
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  cards[at + step]?.focus();
  return true;
}

function cardElement(card, view, opened) {
  const media = make("div", { class: "media" });
  if (card.status === "error") {
    media.append(make("span", { class: "fault" }, card.error?.message ?? "error"));
  } else {
    const source = picture(card, 640, view.run);
    const image = make("img", { src: source, alt: "", loading: "lazy", decoding: "async" });
    image.addEventListener("error", async () => {
      image.replaceWith(make("span", { class: "fault" }, `Image not shown: ${await pictureFault(source)}`));
    });
    media.append(image, make("canvas", { "aria-hidden": "true" }));
  }
  const button = make("button", { type: "button", class: "card", onclick: opened, "data-key": card.key }, media,
    make("div", { class: "body" }, ...chips(card, view),
      make("div", { class: "key" }, make("span", {}, card.key), make("span", {}, card.shard))));
  mark(button, card, view.unit);
  media.draw = () => drawCard(media, card, view);
  visible.observe(media);
  return button;
}

function chips(card, view) {
  const positions = shown(card);
  if (!positions.length) {
    const why = card.status === "error" ? card.error?.kind : card.error?.kind ?? "no phrase";
    return [make("div", { class: "chip empty" }, make("span", { class: "name" }, (why ?? "error").replaceAll("_", " ")))];
  }
  const listed = positions.slice(0, 4).map((position) => {
    const annotation = card.annotations[position];
    const measure = ["order", "random"].includes(view.sort) ? "score" : view.sort;
    const dot = make("span", { class: "dot" });
    dot.style.color = colourOf(position);
    if (annotation.has_target) dot.style.background = colourOf(position);
    const rejected = annotation.review?.verdict === "reject" ? " struck" : "";
    return make("div", { class: annotation.has_target ? "chip" : "chip empty" }, dot,
      make("span", { class: `name${rejected}` }, annotation.phrase),
      make("span", { class: "value" }, annotation.has_target ? show(measure, valueOf(card, annotation, measure)) : "no target"));
  });
  if (positions.length > 4) {
    listed.push(make("div", { class: "chip empty" }, make("span", { class: "name" }, `and ${positions.length - 4} more`)));
  }
  return listed;
}

export function valueOf(card, annotation, measure) {
  if (measure === "area_fraction") return card.width ? annotation.area / (card.width * card.height) : null;
  return annotation[measure];
}

function mark(button, card, unit) {
  const review = cardReview(card, unit);
  button.dataset.verdict = review?.verdict ?? "";
  button.querySelector(".media > .badge")?.remove();
  if (review) {
    button.querySelector(".media").append(make("span", { class: `badge ${review.verdict}` }, LABELS[review.verdict]));
  }
  shown(card).slice(0, 4).forEach((position, i) => {
    const name = button.querySelectorAll(".chip .name")[i];
    name.classList.toggle("struck", card.annotations[position].review?.verdict === "reject");
  });
  const phrases = shown(card).map((position) => {
    const { phrase, has_target: target, score, review: own } = card.annotations[position];
    const said = own ? `, ${LABELS[own.verdict]}` : "";
    return `${phrase} ${target ? show("score", score) : "no target"}${said}`;
  });
  const parts = [`${card.key}, ${card.status === "ok" ? count(phrases.length, "phrase") : card.status.replace("_", " ")}`];
  if (phrases.length) parts.push(phrases.join("; "));
  if (card.status === "error") parts.push(card.error?.message ?? "");
  if (review) parts.push(LABELS[review.verdict]);
  button.setAttribute("aria-label", parts.join(". "));
}

function drawCard(media, card, view) {
  const canvas = media.querySelector("canvas");
  if (!canvas || !card.width) return;
  const box = media.getBoundingClientRect();
  const [columns, rows] = canvasSize(card, box, 900);
  const layers = shown(card).filter((position) => card.annotations[position].has_target)
    .map((position) => ({ position, strength: 1 }));
  drawMasks(canvas, card, layers, { columns, rows, style: view.style, thickness: lineWidth(card, media, columns) });
  media.dataset.drawn = layers.length;
  for (const { position } of layers) {
    const { fault } = card.annotations[position].raster ?? {};
    if (fault && !media.querySelector(".fault")) {
      media.append(make("span", { class: "fault" }, `${card.annotations[position].phrase}: ${fault}`));
    }
  }
}
