// One run: its answer, its timeline, its trajectories, its ledger. Live while it runs.
import * as api from "../lib/api.js";
import { announce, fill, h } from "../lib/dom.js";
import { follow } from "../lib/events.js";
import { LIVE, laneName, percent, premium, seconds, spent, times } from "../lib/format.js";
import { failure, figure, simulatedNotice, statePill, when } from "../parts.js";
import { answerCards, placeOf } from "../run/answer.js";
import { ledgerCard, premiumCard } from "../run/ledger.js";
import { fileList } from "../run/files.js";
import { RunModel } from "../run/model.js";
import { Reader } from "../run/reader.js";
import { Timeline } from "../run/timeline.js";

const LIVE_DRAW_MS = 150;
const TICK_MS = 1_000; // how often the time so far is counted on
const PLACE = /^#(arm-\d|aggregator)-(\d+|end)$/; // a step in the page's address: where a citation leads

export async function show(root, { signal, params: [id] }) {
  const detail = await api.run(id, signal);
  const screen = new RunScreen(detail, signal);
  fill(root, screen.element);
  screen.draw();
  screen.follow();
}

class RunScreen {
  constructor(detail, signal) {
    this.detail = detail;
    this.signal = signal;
    this.id = detail.summary.run_id;
    this.skewMs = detail.now_ms - Date.now();
    this.model = new RunModel(detail.summary.created_ms, detail.summary.ended_ms);
    this.timeline = new Timeline(this.model, {
      chosen: (lane, step) => this.choose(lane, step),
      nowMs: () => Date.now() + this.skewMs,
      signal,
    });
    this.reader = new Reader(this.id, this.model, {
      chosen: (lane, step) => this.timeline.select(lane, step),
      signal,
    });
    this.head = h("header", { class: "run-head" });
    this.link = h("div", { "aria-live": "polite" });
    this.result = h("div", { class: "results" });
    this.money = h("div", { class: "money" });
    this.story = h("div", {});
    const timer = setInterval(() => this.live && !document.hidden && this.#drawHead(), TICK_MS);
    signal.addEventListener("abort", () => clearInterval(timer));
    this.element = h(
      "article",
      { class: "run-screen" },
      this.head,
      this.link,
      this.result,
      this.timeline.element,
      this.reader.element,
      this.money,
      this.story,
    );
  }

  get live() {
    return LIVE.has(this.detail.summary.state);
  }

  /** A step was chosen on the timeline or cited: mark it there, read it below; the address leads there again. */
  choose(lane, step) {
    const last = this.model.lanes.get(lane)?.steps.at(-1)?.index ?? -1;
    const index = step ?? last;
    history.replaceState(null, "", placeOf(lane, index < 0 ? null : index));
    this.timeline.select(lane, index);
    this.reader.show(lane, index, { focus: true });
  }

  /** The log so far in pages, then the rest as it comes; in the end the run anew, with its result. */
  async follow() {
    try {
      await this.#catchUp();
      if (!this.model.ended) await this.#goAlong();
      fill(this.link);
      if (this.live) await this.#conclude();
    } catch (error) {
      if (this.signal.aborted) return;
      if (error.status === 401) throw error;
      fill(
        this.link,
        failure(error, () => this.follow()),
      );
    }
  }

  async #catchUp() {
    for await (const records of api.briefs(this.id, this.model.last, this.signal)) {
      for (const record of records) this.model.apply(record);
      this.draw();
    }
    const [, lane, step] = PLACE.exec(location.hash) ?? [];
    if (this.model.lanes.has(lane)) this.choose(lane, step === "end" ? null : Number(step));
  }

  async #goAlong() {
    const tell = (link) => this.#tell(link);
    const events = follow(this.id, this.model.last, { signal: this.signal, tell });
    for await (const event of events) this.#take(event);
  }

  /** The log has ended, maybe before its first page was read: what the run came to. */
  async #conclude() {
    this.detail = await api.run(this.id, this.signal);
    this.draw();
    const { state } = this.detail.summary;
    announce(`The run has ${state === "completed" ? "an answer" : state}.`);
  }

  #take({ type, data }) {
    if (type === "record") this.model.apply(data);
    else for (const delta of data) this.model.say(delta);
    this.timer ??= setTimeout(() => {
      this.timer = null;
      if (!this.signal.aborted) this.draw();
    }, LIVE_DRAW_MS);
  }

  #tell({ live, retryInMs, error }) {
    if (live) return fill(this.link);
    const text = error?.message ?? "The connection to the server is lost.";
    return fill(
      this.link,
      h(
        "p",
        { class: "notice warn", role: "status" },
        `${text} Trying again in ${seconds(retryInMs / 1000)}; nothing is missed.`,
      ),
    );
  }

  draw() {
    const { summary } = this.detail;
    document.title = `${summary.question.slice(0, 60) || this.id} · Heavy`;
    this.#drawHead();
    if (this.drawnState !== summary.state) {
      this.drawnState = summary.state;
      fill(
        this.result,
        answerCards(this.detail, (lane, step) => this.choose(lane, step)),
      );
    }
    this.timeline.redraw();
    this.reader.update();
    this.#drawMoney();
    this.#drawStory();
  }

  #drawHead() {
    const { summary, messages, result, policy } = this.detail;
    const state = this.live ? this.model.state : summary.state;
    const key = `${state}${summary.cancel_reason}`;
    const spend = summary.spend ?? this.model.spend;
    const over = premium(summary);
    const figures = [
      figure(
        seconds(((summary.ended_ms ?? Date.now() + this.skewMs) - summary.created_ms) / 1000),
        this.live ? "so far" : summary.state === "completed" ? "question to answer" : "question to end",
      ),
      figure(spent(spend.tokens_output === undefined ? null : spend), this.live ? "spent so far" : "spent"),
      over ? figure(times(over), "of one arm", "Spent by the run, against the arm in the middle") : null,
      summary.agreement !== null && result?.agreement.groups.length
        ? figure(percent(summary.agreement), "agree")
        : null,
      figure(`${summary.width}`, summary.width === 1 ? "arm" : "arms"),
    ];
    if (key === this.drawnHead) return fill(this.figures, figures);
    this.drawnHead = key;
    this.figures = h("div", { class: "figures" }, figures);
    return fill(
      this.head,
      h("p", { class: "crumbs" }, h("a", { href: "/" }, "Runs"), " / ", h("code", {}, this.id)),
      summary.simulated ? simulatedNotice() : null,
      h("div", { class: "title" }, this.#question(messages), this.#stop(state)),
      fileList(summary.run_id, this.detail.files, "Files given with the question"),
      h(
        "p",
        { class: "facts" },
        statePill(state),
        h("span", { class: "model" }, summary.models.map((model) => model.title).join(" · ")),
        when(summary.created_ms),
        policy.arms_from ? h("a", { href: `/runs/${policy.arms_from.run}` }, "arms of an earlier run") : null,
        summary.cancel_reason && this.live ? h("span", {}, "being cancelled…") : null,
      ),
      this.figures,
    );
  }

  #question(messages) {
    const last = messages.findLastIndex((message) => message.role === "user");
    const question = messages[last]?.content ?? "";
    const before = messages.slice(0, Math.max(0, last));
    const title = h("h1", { class: question.length > 280 ? "question long" : "question" }, question);
    if (!before.length) return title;
    const turns = before.map((message) =>
      h(
        "div",
        { class: "turn" },
        h("strong", {}, message.role),
        h("pre", { class: "text" }, message.content),
      ),
    );
    return h(
      "div",
      {},
      h(
        "details",
        {},
        h("summary", {}, `${before.length} earlier ${before.length === 1 ? "message" : "messages"}`),
        turns,
      ),
      title,
    );
  }

  #stop(state) {
    if (!LIVE.has(state)) return null;
    const button = h(
      "button",
      { type: "button", class: "danger", disabled: Boolean(this.detail.summary.cancel_reason) },
      "Cancel",
    );
    button.addEventListener("click", async () => {
      if (button.dataset.sure !== "yes") {
        button.dataset.sure = "yes";
        button.textContent = "Really cancel?";
        setTimeout(() => ((button.dataset.sure = ""), (button.textContent = "Cancel")), 4000);
        return;
      }
      button.disabled = true;
      try {
        await api.cancel(this.id);
        this.detail = await api.run(this.id, this.signal);
        this.draw();
      } catch (error) {
        button.disabled = false;
        fill(this.link, failure(error));
      }
    });
    return button;
  }

  #drawMoney() {
    const { ledger, summary, policy } = this.detail;
    const key = ledger ? "final" : this.model.last;
    if (key === this.drawnMoney) return;
    this.drawnMoney = key;
    const order = this.model.ordered.map((lane) => lane.name);
    const rows = ledger
      ? Object.entries(ledger.trajectories).sort(
          ([a], [b]) => (a === "aggregator") - (b === "aggregator") || (a < b ? -1 : 1),
        )
      : order.map((name) => [name, this.model.lanes.get(name).spend]);
    if (!rows.length) return fill(this.money);
    fill(
      this.money,
      ledgerCard(rows, ledger?.total ?? this.model.spend, this.model.cache, Boolean(ledger)),
      ledger ? premiumCard(summary, policy) : null,
    );
  }

  /** Decisions worth reading later, in order. */
  #drawStory() {
    const { startMs, states, notes, ordered } = this.model;
    const key = this.model.last;
    if (key === this.drawnStory) return;
    this.drawnStory = key;
    const moments = [
      ...states.map(({ state, atMs }) => [atMs, `The run is ${state}.`]),
      ...notes.map(({ atMs, text }) => [atMs, text]),
      ...ordered.flatMap((lane) =>
        lane.outcome
          ? [
              [
                lane.endMs,
                `${laneName(lane.name)} ${lane.outcome.kind}${lane.outcome.reason ? `: ${lane.outcome.reason}` : ""}.`,
              ],
            ]
          : [],
      ),
    ].sort(([a], [b]) => a - b);
    fill(
      this.story,
      moments.length
        ? h(
            "details",
            { class: "card story", open: this.story.querySelector("details")?.open ?? false },
            h("summary", {}, `How it went (${moments.length})`),
            h(
              "ol",
              {},
              moments.map(([atMs, text]) =>
                h("li", {}, h("span", { class: "quiet" }, `+${seconds((atMs - startMs) / 1000)}`), " ", text),
              ),
            ),
          )
        : null,
    );
  }
}
