// The run on one time axis, a lane a trajectory. A canvas as wide as the window shows a part of a strip that may be very
// long; the browser's own scrolling moves it, so wheels, fingers and screen readers work as everywhere.
import { announce, fill, h } from "../lib/dom.js";
import { laneName, laneShort, seconds } from "../lib/format.js";
import { stepWords } from "./model.js";
import { AXIS, LANE, Painter, palette } from "./paint.js";

const STRIP_MAX = 4_000_000; // pixels; browsers go no further than some ten million
const NEAR = 8; // pixels within which a click means a step
const LIVE_FRAME_MS = 200;

const LEGEND = [
  ["between", "in between"],
  ["wait", "waiting"],
  ["prefill", "prefill"],
  ["decode", "generating"],
  ["hit", "tool: cache hit"],
  ["coalesced", "coalesced"],
  ["miss", "executed"],
  ["bypass", "uncached"],
  ["stale", "past its time"],
  ["bad", "error, failed"],
  ["cut", "cut"],
];

const HELP =
  "Timeline of the run. Left and right arrows go from step to step, up and down from lane to lane, Enter reads a step, plus and minus zoom, 0 shows all.";

export class Timeline {
  /** `chosen(lane, step)` hears what was clicked or entered. `nowMs()` is the server's clock. */
  constructor(model, { chosen, nowMs, signal }) {
    this.model = model;
    this.chosen = chosen;
    this.nowMs = nowMs;
    this.zoom = 1;
    this.at = { lane: "", step: -1 };
    this.hovered = null;
    this.canvas = h("canvas", { "aria-hidden": "true" });
    this.space = h("div", { class: "space" });
    this.scroller = h(
      "div",
      {
        class: "scroller",
        tabindex: 0,
        role: "application",
        "aria-roledescription": "timeline",
        "aria-label": HELP,
      },
      this.space,
      this.canvas,
    );
    this.labels = h("div", { class: "labels", "aria-hidden": "true" });
    this.tip = h("div", { class: "tip", hidden: true });
    this.element = h(
      "section",
      { class: "card timeline", "aria-label": "Timeline" },
      h("div", { class: "bar" }, h("h2", {}, "Timeline"), this.#buttons()),
      h("div", { class: "strip" }, this.labels, this.scroller, this.tip),
      h(
        "ul",
        { class: "legend", "aria-label": "Colours" },
        LEGEND.map(([name, text]) => h("li", { class: `key ${name}` }, text)),
      ),
    );
    this.#listen(signal);
  }

  #buttons() {
    const button = (text, name, act) =>
      h(
        "button",
        { type: "button", class: "plain", "aria-label": name, title: name, on: { click: act } },
        text,
      );
    return h(
      "div",
      { class: "zoom", role: "group", "aria-label": "Zoom" },
      button("−", "Zoom out", () => this.zoomBy(0.5)),
      button("+", "Zoom in", () => this.zoomBy(2)),
      button("All", "Show all", () => this.showAll()),
    );
  }

  #listen(signal) {
    const redraw = () => this.redraw();
    const options = { signal };
    this.scroller.addEventListener("scroll", redraw, { ...options, passive: true });
    this.scroller.addEventListener("keydown", (event) => this.#key(event), options);
    this.scroller.addEventListener("wheel", (event) => this.#wheel(event), { ...options, passive: false });
    this.scroller.addEventListener("focus", () => this.#arrive(), options);
    this.scroller.addEventListener("blur", redraw, options);
    this.canvas.addEventListener("pointermove", (event) => this.#hover(event), options);
    this.canvas.addEventListener("pointerleave", () => this.#hover(null), options);
    this.canvas.addEventListener("click", (event) => this.#click(event), options);
    matchMedia("(prefers-color-scheme: dark)").addEventListener(
      "change",
      () => ((this.colours = null), redraw()),
      options,
    );
    const size = new ResizeObserver(redraw);
    size.observe(this.scroller);
    const timer = setInterval(() => !this.model.ended && !document.hidden && this.redraw(), LIVE_FRAME_MS);
    signal.addEventListener("abort", () => (size.disconnect(), clearInterval(timer)));
  }

  // Where things are

  get #endMs() {
    return this.model.ended ? this.model.latestMs : Math.max(this.model.latestMs, this.nowMs());
  }

  get #lanes() {
    return this.model.ordered;
  }

  /** Pixels of the whole strip. */
  get #stripWidth() {
    return Math.max(1, Math.min(STRIP_MAX, (this.scroller.clientWidth - 16) * this.zoom));
  }

  /** Where a moment falls on the canvas, as things are now: measured once, asked for thousands of bars. */
  #scale() {
    const { startMs } = this.model;
    const perMs = this.#stripWidth / Math.max(1, this.#endMs - startMs);
    const left = 6 - this.scroller.scrollLeft;
    return (ms) => left + (ms - startMs) * perMs;
  }

  // Drawing

  /** Draw before the next frame, once however often it is asked for. */
  redraw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.#draw();
    });
  }

  #draw() {
    if (!this.canvas.isConnected) return;
    this.#drawLabels();
    const width = this.scroller.clientWidth;
    const height = AXIS + this.#lanes.length * LANE + 4;
    const dense = window.devicePixelRatio || 1;
    if (
      this.canvas.width !== Math.round(width * dense) ||
      this.canvas.height !== Math.round(height * dense)
    ) {
      this.canvas.width = Math.round(width * dense);
      this.canvas.height = Math.round(height * dense);
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
    this.space.style.width = `${this.#stripWidth + 16}px`;
    const context = this.canvas.getContext("2d");
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.clearRect(0, 0, width, height);
    this.#paint(new Painter(context, (this.colours ??= palette()), this.#scale(), width), height);
  }

  #paint(painter, height) {
    const endMs = this.#endMs;
    painter.axis(this.model.startMs, endMs, height);
    this.#lanes.forEach((lane, row) => painter.lane(lane, AXIS + row * LANE, endMs, !this.model.ended));
    for (const note of this.model.notes) painter.moment(note.atMs, height);
    for (const [place, strong] of [
      [this.hovered, false],
      [this.at, true],
    ]) {
      const row = this.#lanes.findIndex((lane) => lane.name === place?.lane);
      const step = this.#lanes[row]?.byIndex.get(place.step);
      if (step) painter.frame(step, AXIS + row * LANE, endMs, strong);
    }
  }

  #drawLabels() {
    const names = this.#lanes.map((lane) => `${lane.name} ${lane.outcome?.kind ?? ""}`).join();
    if (names === this.drawnLabels) return;
    this.drawnLabels = names;
    fill(
      this.labels,
      this.#lanes.map((lane) =>
        h(
          "button",
          {
            type: "button",
            tabindex: -1,
            class: lane.outcome?.kind ?? "going",
            on: { click: () => this.chosen(lane.name, lane.steps.at(-1)?.index ?? -1) },
          },
          h("span", { class: "lane-long" }, laneName(lane.name)),
          h("span", { class: "lane-brief" }, laneShort(lane.name)),
        ),
      ),
    );
  }

  // Moving

  /** Zoom about the moment in the middle, or under the pointer. */
  zoomBy(factor, aboutX = this.scroller.clientWidth / 2) {
    const share = (this.scroller.scrollLeft + aboutX) / this.#stripWidth;
    const most = STRIP_MAX / Math.max(1, this.scroller.clientWidth);
    this.zoom = Math.min(most, Math.max(1, this.zoom * factor));
    this.space.style.width = `${this.#stripWidth + 16}px`;
    this.scroller.scrollLeft = share * this.#stripWidth - aboutX;
    this.redraw();
  }

  showAll() {
    this.zoom = 1;
    this.scroller.scrollLeft = 0;
    this.redraw();
  }

  /** Mark a step, and bring it into view. */
  select(lane, step) {
    this.at = { lane, step };
    const found = this.model.lanes.get(lane)?.byIndex.get(step);
    if (found?.startMs) {
      const x = this.#scale()(found.startMs);
      if (x < 20 || x > this.scroller.clientWidth - 40)
        this.scroller.scrollLeft += x - this.scroller.clientWidth / 3;
    }
    this.redraw();
  }

  /** Focus shows where one is. */
  #arrive() {
    const first = this.#lanes[0];
    if (!this.model.lanes.has(this.at.lane) && first?.steps.length)
      this.select(first.name, first.steps[0].index);
    this.redraw();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      ArrowRight: () => this.#along(1),
      ArrowLeft: () => this.#along(-1),
      PageDown: () => this.#along(10),
      PageUp: () => this.#along(-10),
      Home: () => this.#along(-Infinity),
      End: () => this.#along(Infinity),
      ArrowDown: () => this.#across(1),
      ArrowUp: () => this.#across(-1),
      Enter: () => this.at.lane && this.chosen(this.at.lane, this.at.step),
      " ": () => this.at.lane && this.chosen(this.at.lane, this.at.step),
      "+": () => this.zoomBy(2),
      "=": () => this.zoomBy(2),
      "-": () => this.zoomBy(0.5),
      0: () => this.showAll(),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  /** So many steps on in this lane. */
  #along(by) {
    this.#arrive();
    const lane = this.model.lanes.get(this.at.lane);
    if (!lane?.steps.length) return;
    const from = lane.steps.findIndex((step) => step.index === this.at.step);
    const to = Math.max(0, Math.min(lane.steps.length - 1, from + by));
    this.#go(lane, lane.steps[to]);
  }

  /** To the step of another lane that went on at the same time. */
  #across(by) {
    const lanes = this.#lanes.filter((lane) => lane.steps.length);
    const from = lanes.findIndex((lane) => lane.name === this.at.lane);
    const lane = lanes[Math.max(0, Math.min(lanes.length - 1, from + by))];
    if (!lane) return;
    const nowMs =
      this.model.lanes.get(this.at.lane)?.byIndex.get(this.at.step)?.startMs ?? this.model.startMs;
    this.#go(lane, lane.steps.find((step) => (step.endMs ?? Infinity) >= nowMs) ?? lane.steps.at(-1));
  }

  #go(lane, step) {
    this.select(lane.name, step.index);
    announce(`${laneName(lane.name)}, ${stepWords(step)}`);
  }

  #wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    this.zoomBy(Math.exp(-event.deltaY / 200), event.clientX - this.scroller.getBoundingClientRect().left);
  }

  // Pointing

  #under(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left;
    const lane = this.#lanes[Math.floor((event.clientY - box.top - AXIS) / LANE)];
    if (!lane) return null;
    const at = this.#scale();
    let best = null;
    let nearest = NEAR;
    for (const step of lane.steps) {
      const away = Math.max(at(step.startMs ?? Infinity) - x, x - at(step.endMs ?? Infinity), 0);
      if (away < nearest) [best, nearest] = [step, away];
      if (away === 0) break;
    }
    return { lane: lane.name, step: best?.index ?? -1, found: best, outcome: lane.outcome, x };
  }

  #hover(event) {
    this.hovered = event && this.#under(event);
    this.canvas.classList.toggle("hit", Boolean(this.hovered));
    this.tip.hidden = !this.hovered;
    if (this.hovered) {
      const { lane, found, outcome, x } = this.hovered;
      const row = this.#lanes.findIndex((one) => one.name === lane);
      fill(this.tip, h("strong", {}, laneName(lane)), found ? tipLines(found) : outcomeLine(outcome));
      const strip = this.tip.parentElement.getBoundingClientRect();
      const left = this.scroller.getBoundingClientRect().left - strip.left + x + 12;
      this.tip.style.left = `${Math.max(0, Math.min(left, strip.width - this.tip.offsetWidth - 4))}px`;
      this.tip.style.top = `${AXIS + (row + 1) * LANE + 2}px`;
    }
    this.redraw();
  }

  #click(event) {
    const place = this.#under(event);
    if (!place) return;
    this.at = { lane: place.lane, step: place.step };
    this.chosen(place.lane, place.step);
    this.redraw();
  }
}

function tipLines(step) {
  const { generation, partial } = step;
  const lines = [` step ${step.index + 1}`];
  if (generation) {
    const { queue_s: queue, first_token_s: first, decode_s: decode } = generation.timing;
    lines.push(
      h(
        "div",
        {},
        `waited ${seconds(queue)} · prefill ${seconds(first)} · decode ${seconds(decode)} · ${generation.spend.tokens_output} tokens`,
      ),
    );
  }
  if (partial)
    lines.push(h("div", {}, `unfinished: ${partial.event || "checkpoint"}, ${partial.tokens_output} tokens`));
  for (const tool of step.tools.slice(0, 6)) {
    const how = tool.result
      ? `${tool.result.unknown ? "unknown" : tool.result.is_error ? "error" : tool.result.cache} · ${seconds(tool.result.duration_s)}`
      : "no result";
    lines.push(h("div", {}, `${tool.name} · ${how}`));
  }
  const preview = generation?.preview || partial?.preview;
  if (preview) lines.push(h("div", { class: "quiet" }, preview));
  return lines;
}

function outcomeLine(outcome) {
  return outcome ? ` ${outcome.kind}${outcome.reason ? `: ${outcome.reason}` : ""}` : "";
}
