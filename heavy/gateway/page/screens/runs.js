// Runs, live and past: ask, filter, search by id, page on.
import * as api from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { LIVE, percent, premium, seconds, spent, times } from "../lib/format.js";
import { failure, simulatedBadge, statePill, when } from "../parts.js";
import { askBox } from "./ask.js";

const REFRESH_MS = 3_000;
const PAGE_SIZE = 50;
const FILTERS = { live: [...LIVE], completed: ["completed"], failed: ["failed"], cancelled: ["cancelled"] };
const ROWS_MAX = 500; // on the screen at once; further back one goes by filter or id

export async function show(root, { server, signal, go, query }) {
  document.title = "Runs · Heavy";
  const list = new RunList(signal, query, go);
  fill(
    root,
    h("h1", { class: "visually-hidden" }, "Runs"),
    askBox(server, (made) => go(`/runs/${made.summary.run_id}`)),
    list.element,
  );
  await list.load();
}

class RunList {
  #rows = h("ol", { class: "runs", "aria-label": "Runs" });
  #below = h("div", { class: "below" });
  #search;
  #chips;
  #next = "";
  #pages = 0;
  #loading = new AbortController();

  constructor(signal, query, go) {
    this.signal = signal;
    this.filters = query.getAll("state").filter((name) => name in FILTERS);
    this.#search = h("input", {
      id: "find",
      type: "search",
      placeholder: "run-…",
      value: query.get("id") ?? "",
      spellcheck: "false",
      autocomplete: "off",
    });
    this.#chips = Object.keys(FILTERS).map((name) =>
      h(
        "button",
        {
          type: "button",
          class: "chip",
          "aria-pressed": this.filters.includes(name),
          on: { click: () => this.#toggle(name) },
        },
        name,
      ),
    );
    const form = h(
      "form",
      { role: "search", class: "find", on: { submit: (event) => (event.preventDefault(), this.#changed()) } },
      h("label", { for: "find" }, "Id"),
      this.#search,
    );
    this.#search.addEventListener("input", () => this.#changed());
    this.element = h(
      "section",
      { class: "list", "aria-label": "Runs" },
      h(
        "div",
        { class: "filters" },
        h("div", { role: "group", "aria-label": "States", class: "chips" }, this.#chips),
        form,
      ),
      this.#rows,
      this.#below,
    );
    this.element.addEventListener("keydown", (event) => this.#move(event));
    this.go = go;
    const timer = setInterval(() => this.#refresh(), REFRESH_MS);
    signal.addEventListener("abort", () => (clearInterval(timer), this.#loading.abort()));
  }

  #toggle(name) {
    this.filters = this.filters.includes(name)
      ? this.filters.filter((one) => one !== name)
      : [...this.filters, name];
    for (const chip of this.#chips)
      chip.setAttribute("aria-pressed", this.filters.includes(chip.textContent));
    this.#changed();
  }

  /** Another filter: it goes into the address, so that it can be shared and comes back with the back button. */
  #changed() {
    const query = new URLSearchParams(this.filters.map((name) => ["state", name]));
    if (this.#search.value.trim()) query.set("id", this.#search.value.trim());
    history.replaceState(null, "", query.size ? `/?${query}` : "/");
    this.load();
  }

  /** The first page anew. */
  async load() {
    this.#loading.abort();
    this.#loading = new AbortController();
    const { signal } = this.#loading;
    this.#rows.setAttribute("aria-busy", "true");
    try {
      const page = await this.#page("", signal);
      if (signal.aborted || this.signal.aborted) return;
      this.#pages = 1;
      fill(
        this.#rows,
        page.runs.map((run) => row(run)),
      );
      this.#end(page);
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401) throw error;
      fill(this.#rows);
      this.#fail(error, () => this.load());
    } finally {
      this.#rows.removeAttribute("aria-busy");
    }
  }

  #page(pageToken, signal) {
    const states = this.filters.flatMap((name) => FILTERS[name]);
    return api.runs({ states, id: this.#search.value.trim(), pageToken, pageSize: PAGE_SIZE }, signal);
  }

  /** What stands below the list; left alone while it says the same, so that it keeps the focus. */
  #end(page) {
    this.#next = page.next_page_token;
    const count = this.#rows.children.length;
    const key = `${count} ${Boolean(this.#next)}`;
    if (key === this.#below.dataset.key) return;
    this.#below.dataset.key = key;
    const more = h(
      "button",
      { type: "button", on: { click: () => this.#more() } },
      count ? "Older runs" : "Look further back",
    );
    const full = count >= ROWS_MAX;
    fill(
      this.#below,
      count
        ? null
        : h(
            "p",
            { class: "empty" },
            this.filters.length || this.#search.value
              ? "No run fits."
              : "No runs yet. Ask the first question above.",
          ),
      this.#next && !full ? more : null,
      this.#next && full
        ? h(
            "p",
            { class: "quiet" },
            `These are the newest ${count}. Find older ones by their id, or by state.`,
          )
        : null,
    );
  }

  #fail(error, retry) {
    delete this.#below.dataset.key;
    fill(this.#below, failure(error, retry));
  }

  async #more() {
    const { signal } = this.#loading;
    const button = this.#below.querySelector("button");
    if (button.disabled) return;
    button.disabled = true; // a second press would bring the same page again
    try {
      const page = await this.#page(this.#next, signal);
      const first = row(page.runs[0] ?? null);
      this.#pages += 1;
      this.#rows.append(...page.runs.map((run, index) => (index ? row(run) : first)));
      this.#end(page);
      first?.querySelector("a").focus();
    } catch (error) {
      if (!signal.aborted) this.#fail(error, () => this.#more());
    } finally {
      button.disabled = false; // a page may bring nothing and yet have a next
    }
  }

  /** What is new on the first page; live rows change in place, and nothing moves under a finger. */
  async #refresh() {
    if (document.hidden || this.#pages !== 1 || this.#rows.hasAttribute("aria-busy")) return;
    const { signal } = this.#loading;
    let page;
    try {
      page = await this.#page("", signal);
    } catch (error) {
      if (error.status === 401) throw error;
      if (!signal.aborted) this.#fail(error, () => this.load());
      return;
    }
    if (signal.aborted || this.#pages !== 1) return; // meanwhile one looked elsewhere, or further back
    const known = new Map([...this.#rows.children].map((item) => [item.dataset.run, item]));
    const wanted = page.runs.map((run) => {
      const old = known.get(run.run_id);
      return old && old.dataset.version === versionOf(run) ? old : row(run);
    });
    const focused = document.activeElement?.closest?.("li[data-run]")?.dataset.run;
    if (
      wanted.some((item, index) => this.#rows.children[index] !== item) ||
      wanted.length !== this.#rows.children.length
    ) {
      fill(this.#rows, wanted);
      if (focused)
        this.#rows.querySelector(`[data-run="${CSS.escape(focused)}"] a`)?.focus({ preventScroll: true });
    }
    this.#end(page);
  }

  /** Arrow keys go from run to run. */
  #move(event) {
    const item = event.target.closest?.("li[data-run]");
    const to =
      item && { ArrowDown: item.nextElementSibling, ArrowUp: item.previousElementSibling }[event.key];
    if (!to) return;
    event.preventDefault();
    to.querySelector("a").focus();
  }
}

/** What a row looks like: a live one is another with every look, for its time goes on. */
function versionOf(run) {
  return `${run.state}/${LIVE.has(run.state) ? Date.now() : ""}/${run.cancel_reason}`;
}

function row(run) {
  if (!run) return null;
  const over = premium(run);
  const arms = run.models.map((model) => model.title).join(" · ");
  const item = h(
    "li",
    {},
    h(
      "a",
      { href: `/runs/${run.run_id}`, class: "run" },
      h(
        "span",
        { class: "line" },
        statePill(run.state),
        run.simulated ? simulatedBadge() : null,
        h("span", { class: "question" }, run.question || "(no question)"),
      ),
      outcomeOf(run),
      h(
        "span",
        { class: "facts" },
        h("span", {}, when(run.created_ms)),
        h(
          "span",
          { title: "Time from question to answer" },
          seconds(((run.ended_ms ?? Date.now()) - run.created_ms) / 1000),
        ),
        run.spend ? h("span", { title: "Spent" }, spent(run.spend)) : null,
        over ? h("span", { title: "Spent, against the arm in the middle" }, `${times(over)} one arm`) : null,
        run.agreement !== null
          ? h("span", { title: "Share of the arms that agree" }, `${percent(run.agreement)} agree`)
          : null,
        run.method ? h("span", {}, run.method) : null,
        h("span", {}, `${run.width} ${run.width === 1 ? "arm" : "arms"}`),
        h("span", { class: "model" }, arms),
        h("code", {}, run.run_id),
      ),
    ),
  );
  item.dataset.run = run.run_id;
  item.dataset.version = versionOf(run);
  return item;
}

function outcomeOf(run) {
  if (run.abstained) return h("span", { class: "short quiet" }, "The aggregator abstained.");
  if (run.short_answer)
    return h(
      "span",
      { class: "short" },
      run.short_answer,
      run.dissents ? h("em", { class: "quiet" }, " against the majority") : null,
    );
  if (run.state === "failed") return h("span", { class: "short bad" }, run.failure);
  if (run.state === "cancelled") return h("span", { class: "short quiet" }, run.cancel_reason);
  if (run.cancel_reason) return h("span", { class: "short quiet" }, "being cancelled…");
  return null;
}
