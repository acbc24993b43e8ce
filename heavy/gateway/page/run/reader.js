// One trajectory to be read: a line a step, folded; what was thought, called and given back is fetched when unfolded.
import * as api from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { count, laneName, laneShort, seconds, spent } from "../lib/format.js";
import { failure } from "../parts.js";
import { fileList } from "./files.js";

const TEXT_CHARS = 4_000; // shown of a long text at first
const OPEN_MAX = 40; // unfolded steps; the one unfolded longest ago is folded again
const LINES_AT_ONCE = 100; // step lines drawn at once; more come as one scrolls to them

export class Reader {
  /** `chosen(lane, step)` hears what was unfolded. */
  constructor(runId, model, { chosen, signal }) {
    this.runId = runId;
    this.model = model;
    this.chosen = chosen;
    this.signal = signal;
    this.lane = "";
    this.lines = new Map(); // step index -> its line
    this.opened = [];
    this.tabs = h("div", { role: "tablist", "aria-label": "Trajectories", class: "tabs" });
    this.head = h("div", { class: "head" });
    this.steps = h("ol", { class: "steps" });
    this.saying = h("div", { class: "saying", hidden: true });
    this.panel = h(
      "div",
      { role: "tabpanel", id: "trajectory", "aria-labelledby": "tab-", tabindex: -1 },
      this.head,
      this.steps,
      this.saying,
    );
    this.element = h(
      "section",
      { class: "card reader", "aria-label": "Trajectories" },
      h("h2", {}, "Trajectories"),
      this.tabs,
      this.panel,
    );
    this.tabs.addEventListener("keydown", (event) => this.#turn(event));
  }

  /** Take in what the model has learnt. */
  update() {
    const lanes = this.model.ordered;
    if (!this.lane && lanes.length) this.lane = lanes[0].name;
    this.#drawTabs(lanes);
    const lane = this.model.lanes.get(this.lane);
    if (!lane) return;
    this.#drawHead(lane);
    this.#drawSteps(lane);
    this.#drawSaying(lane);
  }

  /** Show a trajectory; where a step is named, unfold it and bring it into view. */
  async show(name, step = -1, { focus = false } = {}) {
    if (name !== this.lane) {
      this.lane = name;
      this.lines.clear();
      this.opened = [];
      this.steps.replaceChildren();
      this.tail = 0;
    }
    this.update();
    if (step < 0) return;
    this.#drawUpTo(step);
    const line = this.lines.get(step);
    if (!line) return;
    await this.#open(line);
    line.element.scrollIntoView({ block: "nearest" });
    if (focus) line.button.focus({ preventScroll: true });
  }

  #drawTabs(lanes) {
    const key = lanes.map((lane) => `${lane.name}${lane.outcome?.kind ?? ""}`).join() + this.lane;
    if (key === this.drawnTabs) return;
    this.drawnTabs = key;
    const focused = this.tabs.contains(document.activeElement);
    fill(
      this.tabs,
      lanes.map((lane) => {
        const here = lane.name === this.lane;
        return h(
          "button",
          {
            type: "button",
            role: "tab",
            id: `tab-${lane.name}`,
            "aria-selected": here,
            "aria-controls": "trajectory",
            "aria-label": `${laneName(lane.name)}${lane.outcome ? `, ${lane.outcome.kind}` : ", under way"}`,
            tabindex: here ? 0 : -1,
            class: lane.outcome?.kind ?? "going",
            on: { click: () => this.#choose(lane.name) },
          },
          h("span", { class: "lane-long" }, laneName(lane.name)),
          h("span", { class: "lane-brief" }, laneShort(lane.name)),
        );
      }),
    );
    this.panel.setAttribute("aria-labelledby", `tab-${this.lane}`);
    if (focused) document.getElementById(`tab-${this.lane}`)?.focus();
  }

  #choose(name) {
    this.show(name);
    this.chosen(name, -1);
  }

  /** Arrow keys go from tab to tab. */
  #turn(event) {
    const names = this.model.ordered.map((lane) => lane.name);
    const at = names.indexOf(this.lane);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: names.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.#choose(names[(to + names.length) % names.length]);
    document.getElementById(`tab-${this.lane}`).focus();
  }

  #drawHead(lane) {
    const { outcome } = lane;
    const cache = Object.entries(lane.cache).map(([state, number]) =>
      h("span", { class: `cache ${state}` }, `${number} ${state}`),
    );
    fill(
      this.head,
      h(
        "p",
        { class: "facts" },
        h("span", { class: `pill ${outcome?.kind ?? "running"}` }, outcome ? outcome.kind : "under way"),
        outcome?.reason ? h("span", {}, outcome.reason) : null,
        h("span", { class: "model" }, lane.title || lane.profile),
        h("span", {}, `${lane.steps.length} ${lane.steps.length === 1 ? "step" : "steps"}`),
        h("span", {}, `${count(lane.spend.tokens_output)} tokens out`),
        h("span", {}, spent(lane.spend)),
        cache,
      ),
      outcome?.detail ? h("p", { class: "quiet" }, outcome.detail) : null,
      lane.notes.slice(-8).map((note) => h("p", { class: "note" }, note.text)),
    );
  }

  // Steps

  #drawSteps(lane) {
    const { steps } = lane;
    this.tail = Math.max(this.tail ?? 0, Math.min(steps.length, LINES_AT_ONCE));
    // A live lane that one has read to its end keeps growing.
    if (!lane.outcome && steps.length - this.tail < LINES_AT_ONCE) this.tail = steps.length;
    for (const step of steps.slice(0, this.tail)) this.#line(step);
    this.#drawRest(steps.length - this.tail);
    if (lane.outcome && !this.opened.length && steps.length === 1) this.#open(this.lines.get(steps[0].index));
  }

  #drawRest(left) {
    this.rest ??= h("button", { type: "button", class: "plain rest", on: { click: () => this.#more() } });
    if (left <= 0) return this.rest.remove();
    this.rest.textContent = `${left} more steps`;
    this.steps.append(h("li", {}, this.rest));
    this.watch ??= new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && this.#more());
    this.watch.disconnect();
    this.watch.observe(this.rest);
  }

  #more() {
    const lane = this.model.lanes.get(this.lane);
    this.#drawUpTo(lane.steps[Math.min(lane.steps.length, this.tail + LINES_AT_ONCE) - 1].index);
  }

  #drawUpTo(index) {
    const lane = this.model.lanes.get(this.lane);
    if (!lane) return;
    const place = lane.steps.findIndex((step) => step.index === index);
    this.rest?.parentElement?.remove();
    this.tail = Math.max(this.tail ?? 0, place + 1);
    this.#drawSteps(lane);
  }

  /** The line of a step, made or brought up to date. */
  #line(step) {
    let line = this.lines.get(step.index);
    if (!line) {
      line = { index: step.index, open: false, shown: 0 };
      line.summary = h("span", { class: "summary" });
      line.button = h(
        "button",
        { type: "button", "aria-expanded": "false", on: { click: () => this.#toggle(line) } },
        line.summary,
      );
      line.body = h("div", { class: "body", hidden: true });
      line.element = h("li", { class: "step", id: `${this.lane}-${step.index}` }, line.button, line.body);
      line.drawn = -1;
      this.lines.set(step.index, line);
      this.rest?.parentElement?.remove();
      this.steps.append(line.element);
    }
    if (line.drawn !== step.last) {
      line.drawn = step.last;
      fill(line.summary, summaryOf(step));
      if (line.open && line.shown !== step.last) this.#load(line);
    }
  }

  #toggle(line) {
    if (line.open) return this.#close(line);
    this.chosen(this.lane, line.index);
    return this.#open(line);
  }

  async #open(line) {
    if (line.open) return;
    line.open = true;
    line.button.setAttribute("aria-expanded", "true");
    line.body.hidden = false;
    this.opened.push(line);
    if (this.opened.length > OPEN_MAX) this.#close(this.opened[0]);
    await this.#load(line);
  }

  #close(line) {
    line.open = false;
    line.shown = 0;
    line.button.setAttribute("aria-expanded", "false");
    line.body.hidden = true;
    line.body.replaceChildren();
    this.opened = this.opened.filter((one) => one !== line);
  }

  async #load(line) {
    const step = this.model.lanes.get(this.lane)?.byIndex.get(line.index);
    if (!step) return;
    line.shown = step.last;
    try {
      const records = await api.records(this.runId, this.lane, step.first, step.last, this.signal);
      if (line.open) fill(line.body, bodyOf(this.runId, records.filter((record) => record.step === step.index)));
    } catch (error) {
      if (!this.signal.aborted)
        fill(
          line.body,
          failure(error, () => this.#load(line)),
        );
    }
  }

  // The generation in progress

  #drawSaying(lane) {
    const { saying } = lane;
    this.saying.hidden = !saying;
    if (!saying) return this.saying.replaceChildren();
    fill(
      this.saying,
      h(
        "p",
        { class: "facts" },
        h("span", { class: "pill running" }, `step ${saying.step + 1}`),
        h("span", {}, "as it comes"),
      ),
      saying.reasoning ? h("pre", { class: "text reasoning" }, saying.reasoning) : null,
      saying.content ? h("pre", { class: "text" }, saying.content) : null,
    );
    for (const text of this.saying.querySelectorAll("pre")) text.scrollTop = text.scrollHeight;
  }
}

function summaryOf(step) {
  const { generation, partial } = step;
  const begun = generation ?? partial;
  return [
    h("span", { class: "number" }, `Step ${step.index + 1}`),
    begun && h("span", { class: "took" }, seconds((begun.at_ms - begun.startMs) / 1000)),
    generation && h("span", { class: "took" }, `${count(generation.spend.tokens_output)} tok`),
    partial && h("span", { class: "pill cut" }, `unfinished: ${partial.event || "checkpoint"}`),
    generation?.finish_reason === "length" && h("span", { class: "pill cut" }, "length"),
    step.tools.map((tool) =>
      h("span", { class: `cache ${toolState(tool)}` }, `${tool.name} · ${toolState(tool)}`),
    ),
    h("span", { class: "preview" }, begun?.preview ?? ""),
  ];
}

function toolState(tool) {
  if (!tool.result) return "no result";
  if (tool.result.unknown) return "unknown";
  return tool.result.is_error ? "error" : tool.result.cache;
}

/** A step's records as they are read: thought, said, called, given back. */
function bodyOf(runId, records) {
  const whole = records.filter((one) => one.body.kind === "generation");
  const shown = records.filter((one) => one.body.kind !== "partial_generation" || !whole.length);
  const results = new Map(
    shown.filter((one) => one.body.kind === "tool_result").map((one) => [one.body.call_id, one.body]),
  );
  return shown.map(({ body }) => {
    if (body.kind === "generation" || body.kind === "partial_generation") return saidOf(body);
    if (body.kind === "tool_intent") return callOf(runId, body, results.get(body.call.id));
    if (body.kind === "lifecycle") return h("p", { class: "note" }, body.detail);
    return null;
  });
}

function saidOf(body) {
  const { message } = body;
  return [
    message.reasoning ? part("Thinks", message.reasoning, "reasoning") : null,
    message.content ? part("Says", message.content) : null,
    body.replica
      ? h(
          "p",
          { class: "quiet small" },
          `${body.model} on ${body.replica} · ${body.finish_reason}${body.repairs.length ? ` · mended: ${body.repairs.join(", ")}` : ""}`,
        )
      : null,
  ];
}

function callOf(runId, { call, effects }, result) {
  const state = result
    ? result.unknown
      ? "unknown"
      : result.is_error
        ? "error"
        : result.cache
    : "no result";
  return h(
    "div",
    { class: "call" },
    h(
      "p",
      { class: "facts" },
      h("strong", {}, call.name),
      h("span", { class: `cache ${state}` }, state),
      result ? h("span", {}, seconds(result.duration_s)) : null,
      effects === "write" ? h("span", { class: "pill cut" }, "changes the world") : null,
    ),
    text(argumentsOf(call.arguments), "code"),
    result
      ? text(result.content || "(nothing)", result.is_error ? "code bad" : "code result")
      : h("p", { class: "note" }, "No result was recorded: whether the call was carried out is unknown."),
    fileList(runId, result?.files, `Files of ${call.name}`),
  );
}

/** Arguments as a person reads them: code as code, other JSON laid out; broken JSON as it came. */
function argumentsOf(raw) {
  try {
    const value = JSON.parse(raw);
    const keys = Object.keys(value);
    if (keys.length === 1 && typeof value[keys[0]] === "string") return value[keys[0]];
    return JSON.stringify(value, null, 2);
  } catch {
    return raw;
  }
}

function part(name, content, kind = "") {
  return h("div", { class: "part" }, h("h3", {}, name), text(content, kind));
}

/** Text as it was written; the rest of a long one on demand. */
function text(content, kind) {
  const shown = h("pre", { class: `text ${kind}`, tabindex: 0 }, content.slice(0, TEXT_CHARS));
  if (content.length <= TEXT_CHARS) return shown;
  const more = h(
    "button",
    { type: "button", class: "plain", on: { click: () => ((shown.textContent = content), more.remove()) } },
    `Show all ${count(content.length)} characters`,
  );
  return [shown, more];
}
