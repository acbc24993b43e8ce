// A run as its log tells it: fed with records in brief, in order, each once. Knows nothing of the screen.

const AGGREGATOR = "aggregator";

/** One generation and the tool calls it asked for. Times are wall-clock milliseconds; null while not known. */
class Step {
  constructor(index) {
    this.index = index;
    this.first = Infinity; // numbers of its first and last record
    this.last = 0;
    this.generation = null;
    this.partial = null;
    this.tools = [];
    this.startMs = null;
    this.endMs = null;
  }

  #span(startMs, endMs) {
    this.startMs = this.startMs === null ? startMs : Math.min(this.startMs, startMs);
    this.endMs = this.endMs === null ? endMs : Math.max(this.endMs, endMs);
  }

  apply(record, sinceMs) {
    this.first = Math.min(this.first, record.number);
    this.last = Math.max(this.last, record.number);
    if (record.kind === "generation") {
      const { queue_s: queue, first_token_s: first, decode_s: decode } = record.timing;
      const startMs = Math.max(sinceMs, record.at_ms - (queue + first + decode) * 1000);
      this.generation = {
        ...record,
        startMs,
        queuedMs: startMs + queue * 1000,
        firstMs: startMs + (queue + first) * 1000,
      };
      this.partial = null;
      this.#span(startMs, record.at_ms);
    } else if (record.kind === "partial_generation") {
      this.partial = { ...record, startMs: this.partial?.startMs ?? sinceMs };
      this.#span(this.partial.startMs, record.at_ms);
    } else if (record.kind === "tool_intent") {
      this.tools.push({
        id: record.call_id,
        name: record.name,
        startMs: record.at_ms,
        endMs: null,
        intent: record,
        result: null,
      });
      this.#span(record.at_ms, record.at_ms);
    } else if (record.kind === "tool_result") {
      let call = this.tools.find((tool) => tool.id === record.call_id && !tool.result);
      if (!call)
        this.tools.push(
          (call = {
            id: record.call_id,
            name: record.name,
            startMs: record.at_ms - record.duration_s * 1000,
            intent: null,
          }),
        );
      call.result = record;
      call.endMs = record.at_ms;
      this.#span(call.startMs, record.at_ms);
    }
  }

  /** Calls begun and not ended. */
  get open() {
    return this.tools.filter((tool) => !tool.result);
  }
}

/** One trajectory. */
class Lane {
  constructor(name) {
    this.name = name;
    this.title = "";
    this.profile = "";
    this.startMs = null;
    this.endMs = null; // when it ended
    this.lastMs = null; // when it last did something
    this.outcome = null;
    this.steps = [];
    this.notes = [];
    this.saying = null; // {step, reasoning, content} of the generation in progress
    this.cache = {};
    this.spend = {
      tokens_prompt: 0,
      tokens_cached: 0,
      tokens_reasoning: 0,
      tokens_output: 0,
      tool_calls: 0,
      gpu_seconds: 0,
      cost_usd: 0,
      wall_s: 0,
    };
    this.byIndex = new Map();
  }

  step(index) {
    let step = this.byIndex.get(index);
    if (!step) {
      step = new Step(index);
      this.byIndex.set(index, step);
      this.steps.push(step);
    }
    return step;
  }

  /** The step under way, if its calls or its generation are. */
  get current() {
    return this.steps.at(-1) ?? null;
  }

  apply(record) {
    const sinceMs = this.lastMs ?? this.startMs ?? record.at_ms;
    this.startMs ??= record.at_ms;
    if (record.kind === "lifecycle") this.#lifecycle(record);
    else if (record.step >= 0) {
      this.step(record.step).apply(record, sinceMs);
      this.#count(record);
    }
    this.lastMs = Math.max(this.lastMs ?? 0, record.at_ms);
  }

  #lifecycle(record) {
    if (record.event === "trajectory_started") {
      this.title = record.preview;
      this.profile = record.profile;
      this.startMs = record.at_ms;
    } else if (record.event === "trajectory_ended") {
      this.outcome = record.outcome;
      this.endMs = record.at_ms;
      this.saying = null;
      if (record.outcome.spend.tokens_output || record.outcome.spend.cost_usd)
        this.spend = record.outcome.spend;
    } else {
      this.notes.push({ atMs: record.at_ms, step: record.step, text: record.preview });
    }
  }

  #count(record) {
    if (record.kind === "generation") {
      for (const key of Object.keys(this.spend)) this.spend[key] += record.spend[key];
      this.saying = null;
    } else if (record.kind === "partial_generation") {
      if (record.event !== "checkpoint") this.saying = null; // the step begins anew, and so does its text
    } else if (record.kind === "tool_result") {
      const state = record.unknown ? "unknown" : record.is_error ? "error" : record.cache;
      this.cache[state] = (this.cache[state] ?? 0) + 1;
      this.spend.tool_calls += 1;
      this.spend.wall_s += record.duration_s;
    }
  }
}

const SAYING_CHARS = 12_000; // of a generation in progress; its record will have all of it

export class RunModel {
  lanes = new Map();
  notes = [];
  states = []; // {state, atMs}
  last = 0; // number of the last record
  startMs;
  endMs = null;

  /** `endedMs` of a run that has ended already, whose log is yet to be read. */
  constructor(createdMs, endedMs = null) {
    this.startMs = createdMs;
    this.endMs = endedMs;
  }

  get state() {
    return this.states.at(-1)?.state ?? "accepted";
  }

  get ended() {
    return this.endMs !== null;
  }

  /** Arms by index, the aggregator last. */
  get ordered() {
    return [...this.lanes.values()].sort(
      (a, b) => (a.name === AGGREGATOR) - (b.name === AGGREGATOR) || (a.name < b.name ? -1 : 1),
    );
  }

  get latestMs() {
    return this.endMs ?? Math.max(this.startMs, ...[...this.lanes.values()].map((lane) => lane.lastMs ?? 0));
  }

  lane(name) {
    if (!this.lanes.has(name)) this.lanes.set(name, new Lane(name));
    return this.lanes.get(name);
  }

  /** Take one record in. One that came before is passed over. */
  apply(record) {
    if (record.number <= this.last) return;
    this.last = record.number;
    if (record.trajectory) this.lane(record.trajectory).apply(record);
    else if (record.event === "run_state") {
      this.states.push({ state: record.state, atMs: record.at_ms });
      if (["completed", "failed", "cancelled"].includes(record.state)) this.endMs = record.at_ms;
    } else this.notes.push({ atMs: record.at_ms, text: record.preview });
  }

  /** Take fresh text in. */
  say(delta) {
    const lane = this.lane(delta.trajectory);
    if (lane.outcome) return;
    if (lane.saying?.step !== delta.step) lane.saying = { step: delta.step, reasoning: "", content: "" };
    for (const kind of ["reasoning", "content"])
      lane.saying[kind] = (lane.saying[kind] + delta[kind]).slice(-SAYING_CHARS);
  }

  /** What is spent so far, over all lanes. */
  get spend() {
    const total = {};
    for (const lane of this.lanes.values())
      for (const [key, value] of Object.entries(lane.spend)) total[key] = (total[key] ?? 0) + value;
    return total;
  }

  /** How many tool results came how: {hit: 3, miss: 1, error: 2}. */
  get cache() {
    const total = {};
    for (const lane of this.lanes.values())
      for (const [key, value] of Object.entries(lane.cache)) total[key] = (total[key] ?? 0) + value;
    return total;
  }
}

/** What a step was, in words. */
export function stepWords(step) {
  const words = [`step ${step.index + 1}`];
  if (step.generation)
    words.push(
      `${step.generation.spend.tokens_output} tokens in ${Math.round(step.generation.at_ms - step.generation.startMs)} ms`,
    );
  else if (step.partial) words.push(`unfinished generation, ${step.partial.tokens_output} tokens`);
  for (const tool of step.tools) {
    words.push(
      `${tool.name} ${tool.result ? (tool.result.unknown ? "unknown" : tool.result.is_error ? "error" : tool.result.cache) : "under way"}`,
    );
  }
  return words.join(", ");
}
