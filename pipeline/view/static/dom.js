// Small helpers. Text from the dataset only ever becomes text nodes: nothing here parses HTML.

export const byId = (id) => document.getElementById(id);

/** Make an element. `attributes` starting with "on" are listeners; null, undefined and false are left out. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const LABELS = {
  score: "score", predicted_iou: "predicted IoU", stability: "stability", box_agreement: "box agreement",
  clip_score: "CLIP score", agreement: "agreement of models", p_correct: "P(correct)", p_correct_75: "P(IoU ≥ 0.75)", area: "area", area_fraction: "share of image", order: "dataset order", random: "random",
  accept: "accepted", reject: "rejected", flag: "flagged",
};

const whole = new Intl.NumberFormat("en");

export function count(number, noun) {
  return `${whole.format(number)} ${noun}${number === 1 ? "" : "s"}`;
}

export function show(measure, value) {
  if (value === null || value === undefined) return "–";
  if (measure === "area") return `${whole.format(value)} px`;
  if (measure === "area_fraction") return `${(value * 100).toPrecision(value < 0.1 ? 2 : 3)} %`;
  return value.toFixed(2);
}

export const wholeNumber = (value) => whole.format(value);

/** Say it to screen readers. */
export function announce(text) {
  byId("announce").textContent = text;
}

let hiding = 0;

/** Show an error for some seconds, as an alert. */
export function alertUser(text) {
  const alert = byId("alert");
  alert.textContent = text;
  alert.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { alert.hidden = true; }, 8000);
}

export function setting(name, fallback) {
  try { return localStorage.getItem(`sspsam.${name}`) ?? fallback; } catch { return fallback; }
}

export function keepSetting(name, value) {
  try { localStorage.setItem(`sspsam.${name}`, value); } catch { /* private window: not kept */ }
}
