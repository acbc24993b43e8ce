// How a lane of the timeline looks. Draws on a canvas what falls between its edges, and nothing else.
import { colour } from "../lib/dom.js";

export const LANE = 34; // pixels
export const AXIS = 22;
const SAYING_LEAST = 80; // pixels below which there is no room for words

const NAMES = [
  "ink",
  "quiet",
  "line",
  "wait",
  "prefill",
  "decode",
  "hit",
  "coalesced",
  "miss",
  "bypass",
  "stale",
  "bad",
  "cut",
  "good",
  "accent",
  "card",
];

/** The colours of the style sheet as they are now, light or dark. */
export function palette() {
  return Object.fromEntries(NAMES.map((name) => [name, colour(name)]));
}

/** `x(ms)` is where a moment falls; `width` the canvas's, both in pixels. */
export class Painter {
  constructor(context, colours, x, width) {
    this.context = context;
    this.colours = colours;
    this.x = x;
    this.width = width;
  }

  /** The time axis: seconds since the run was accepted, at round distances. */
  axis(startMs, endMs, height) {
    const { context, colours } = this;
    const perPixel = (endMs - startMs) / (this.x(endMs) - this.x(startMs));
    const tick = roundStep(perPixel * 90);
    const fromMs = startMs + perPixel * (0 - this.x(startMs));
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    for (let t = Math.max(0, Math.floor((fromMs - startMs) / tick) * tick); ; t += tick) {
      const x = Math.round(this.x(startMs + t)) + 0.5;
      if (x > this.width || startMs + t > endMs) break;
      context.fillStyle = colours.line;
      context.fillRect(x - 0.5, AXIS - 4, 1, height - AXIS + 4);
      context.fillStyle = colours.quiet;
      if (x < this.width - 30) context.fillText(axisLabel(t, tick), x + 4, AXIS / 2 + 1);
    }
  }

  /** A moment of the whole run, such as the quorum. */
  moment(ms, height) {
    const x = Math.round(this.x(ms)) + 0.5;
    if (x < 0 || x > this.width) return;
    const { context } = this;
    context.strokeStyle = this.colours.accent;
    context.setLineDash([3, 3]);
    context.beginPath();
    context.moveTo(x, AXIS);
    context.lineTo(x, height);
    context.stroke();
    context.setLineDash([]);
  }

  /** One lane from `top` down; `nowMs` is where what is under way has got to, if `going` anything is. */
  lane(lane, top, nowMs, going = false) {
    const { context, colours } = this;
    const middle = top + LANE / 2;
    const startMs = lane.startMs ?? nowMs;
    this.#bar(startMs, lane.endMs ?? lane.lastMs ?? nowMs, middle - 0.5, 1, colours.quiet);
    for (const step of visible(lane.steps, this))
      this.#step(step, top, going && lane.endMs === null ? nowMs : null);
    if (going && lane.endMs === null && lane.startMs !== null) this.#underWay(lane, top, nowMs);
    if (lane.outcome) this.#outcome(lane, top);
    context.globalAlpha = 1;
  }

  #step(step, top, nowMs) {
    const { generation, partial } = step;
    const { colours } = this;
    if (generation) {
      this.#bar(generation.startMs, generation.queuedMs, top + 11, 6, colours.wait);
      this.#bar(generation.queuedMs, generation.firstMs, top + 8, 12, colours.prefill);
      this.#bar(generation.firstMs, generation.at_ms, top + 8, 12, colours.decode, 0.6);
    }
    if (partial) {
      this.#bar(partial.startMs, partial.at_ms, top + 8, 12, colours.cut, 0.6);
    }
    for (const tool of step.tools)
      this.#bar(
        tool.startMs,
        tool.endMs ?? nowMs ?? tool.startMs,
        top + 22,
        5,
        toolColour(tool, colours),
        1.2,
      );
  }

  /** The generation that has not ended yet, and below it the end of what it has said. */
  #underWay(lane, top, nowMs) {
    if (lane.current?.open.length) return; // calls are drawn with their step
    const { context, colours } = this;
    const fromMs = lane.lastMs ?? lane.startMs;
    context.globalAlpha = 0.45;
    this.#bar(fromMs, nowMs, top + 8, 12, lane.saying ? colours.decode : colours.wait, 1);
    context.globalAlpha = 1;
    const left = Math.max(0, this.x(fromMs));
    const right = Math.min(this.width, this.x(nowMs));
    if (!lane.saying || right - left < SAYING_LEAST) return;
    context.save();
    context.beginPath();
    context.rect(left, top + 20, right - left, LANE - 20);
    context.clip();
    context.font = "10px system-ui, sans-serif";
    context.textAlign = "right";
    context.fillStyle = colours.quiet;
    context.fillText(
      (lane.saying.content || lane.saying.reasoning).slice(-240).replace(/\s+/g, " "),
      right,
      top + 27,
    );
    context.restore();
  }

  #outcome(lane, top) {
    const x = this.x(lane.endMs);
    if (x < -8 || x > this.width + 8) return;
    const { context, colours } = this;
    const kind = lane.outcome.kind;
    context.fillStyle = colours[{ completed: "good", cut: "cut", failed: "bad" }[kind]];
    context.beginPath();
    if (kind === "completed") context.arc(x, top + LANE / 2, 4, 0, 7);
    else context.rect(x - 1.5, top + 4, 3, LANE - 8);
    context.fill();
  }

  /** A span; at least `least` pixels wide, so that short ones are seen too. */
  #bar(fromMs, toMs, top, height, fill, least = 0) {
    const left = Math.max(-4, this.x(fromMs));
    const right = Math.min(this.width + 4, this.x(toMs));
    if (right < 0 || left > this.width) return;
    const width = right - left - (right - left > 3 ? 0.75 : 0); // a hair between neighbours
    if (width <= 0 && !least) return;
    this.context.fillStyle = fill;
    this.context.fillRect(left, top, Math.max(width, least), height);
  }

  /** A frame around a step. */
  frame(step, top, nowMs, strong) {
    const left = this.x(step.startMs ?? nowMs) - 3;
    const right = this.x(step.endMs ?? nowMs) + 3;
    const { context } = this;
    context.strokeStyle = strong ? this.colours.accent : this.colours.quiet;
    context.lineWidth = strong ? 2 : 1;
    context.beginPath();
    context.roundRect(left, top + 3, Math.max(right - left, 8), LANE - 6, 4);
    context.stroke();
    context.lineWidth = 1;
  }
}

/** The steps that touch the canvas: those between two places found by halving. */
function* visible(steps, painter) {
  let low = 0;
  let high = steps.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (painter.x(steps[middle].endMs ?? Infinity) < -4) low = middle + 1;
    else high = middle;
  }
  for (let at = low; at < steps.length; at++) {
    if (steps[at].startMs !== null && painter.x(steps[at].startMs) > painter.width + 4) return;
    yield steps[at];
  }
}

export function toolColour(tool, colours) {
  if (!tool.result) return colours.wait;
  return tool.result.is_error ? colours.bad : (colours[tool.result.cache] ?? colours.miss);
}

/** 1, 2 or 5 times a power of ten milliseconds; above a second, parts of a minute and an hour. */
function roundStep(ms) {
  for (const step of [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 12e5, 18e5,
  ]) {
    if (step >= ms) return step;
  }
  return Math.ceil(ms / 36e5) * 36e5;
}

function axisLabel(ms, tick) {
  if (ms === 0) return "0";
  if (tick < 1000) return `${(ms / 1000).toFixed(tick < 10 ? 3 : tick < 100 ? 2 : 1)} s`;
  const s = Math.round(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`;
  return `${Math.floor(s / 3600)}:${String(Math.floor((s % 3600) / 60)).padStart(2, "0")}:${String(s % 60).padStart(2, "0")}`;
}
