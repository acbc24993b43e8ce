// Cost and latency of recent runs, by profile; single against heavy.
import * as api from "../lib/api.js";
import { scatter } from "../charts/scatter.js";
import { fill, h } from "../lib/dom.js";
import { count, digits, measureOf, MEASURES, percent, premium, seconds, times } from "../lib/format.js";
import { failure } from "../parts.js";

const RUNS_MAX = 1_000;
const PAGE_SIZE = 200;
const ENDED = ["completed", "failed", "cancelled"];
const TICKS = {
  Cost: (value) => `$${Number(value.toPrecision(3))}`,
  "GPU time": (value) => `${Number(value.toPrecision(3))} s`,
  Tokens: count,
};

export async function show(root, { signal, go }) {
  document.title = "Spend · Heavy";
  const body = h("div", {}, h("p", { class: "quiet" }, "Loading…"));
  fill(root, h("h1", {}, "Spend"), body);
  const runs = [];
  try {
    for (let pageToken = ""; runs.length < RUNS_MAX;) {
      const page = await api.runs({ states: ENDED, pageToken, pageSize: PAGE_SIZE }, signal);
      runs.push(...page.runs);
      draw(body, runs, go);
      pageToken = page.next_page_token;
      if (!pageToken) break;
    }
  } catch (error) {
    if (signal.aborted) return;
    if (error.status === 401) throw error;
    body.prepend(failure(error, () => show(root, { signal, go })));
  }
}

function draw(root, runs, go) {
  if (!runs.length)
    return fill(root, h("p", { class: "empty" }, "No run has ended yet. What they cost will be shown here."));
  const groups = byProfile(runs);
  const chosen = (run) => go(`/runs/${run.run_id}`);
  return fill(
    root,
    h(
      "p",
      { class: "quiet" },
      `The ${runs.length === 1 ? "newest run" : `newest ${digits(runs.length)} runs`} that ended, the oldest ${new Date(runs.at(-1).created_ms).toLocaleString("sv-SE")}.`,
    ),
    h(
      "ul",
      { class: "legend" },
      groups.map((group, index) => h("li", { class: `key series-${index % 6}` }, group.title)),
    ),
    h(
      "div",
      { class: "charts" },
      measuresOf(runs).map((measure) => [
        spends(`${measure.name} of a run`, measure, (run) => run.spend),
        spends(`${measure.name} of its median arm`, measure, (run) => run.median_arm),
      ]),
      scatter(
        "Latency of a run",
        series(groups, (run) => (run.ended_ms - run.created_ms) / 1000),
        { format: seconds, tick: secondsTick, chosen },
      ),
      scatter("Premium over its median arm", series(groups, premium), {
        format: times,
        tick: (value) => `×${value}`,
        chosen,
      }),
    ),
    table(groups),
  );

  function spends(title, { name, of, format }, spendOf) {
    const values = series(groups, (run) => spendOf(run) && of(spendOf(run)));
    return scatter(title, values, { format, tick: TICKS[name], chosen });
  }
}

/** Money and GPU time where any run has them; tokens where none has either. */
function measuresOf(runs) {
  const known = runs.map((run) => run.spend).filter(Boolean);
  const first = MEASURES.indexOf(measureOf(known));
  return MEASURES.filter(
    (one, index) => index === first || (one.name !== "Tokens" && known.some((spend) => one.of(spend) > 0)),
  );
}

function secondsTick(value) {
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${Math.round(value)} s`;
}

function byProfile(runs) {
  const groups = new Map();
  for (const run of runs) {
    const title = run.models.map((model) => model.title).join(" + ");
    if (!groups.has(title)) groups.set(title, { title, runs: [] });
    groups.get(title).runs.push(run);
  }
  return [...groups.values()].sort((a, b) => b.runs.length - a.runs.length);
}

function series(groups, of) {
  return groups.map((group) => ({
    name: group.title,
    points: group.runs.map((run) => ({ x: run.created_ms, y: of(run), run })).filter((point) => point.y > 0),
  }));
}

function table(groups) {
  const columns = [
    "Profile",
    "Runs",
    "Answered",
    "Spent, median",
    "95%",
    "One arm, median",
    "Premium, median",
    "Latency, median",
    "95%",
    "Agreement, mean",
  ];
  return h(
    "section",
    { class: "card profiles" },
    h("h2", {}, "Single against heavy, by profile"),
    h(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": "Figures by profile" },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            columns.map((name) => h("th", { scope: "col" }, name)),
          ),
        ),
        h("tbody", {}, groups.map(tableRow)),
      ),
    ),
  );
}

function tableRow({ title, runs }) {
  const completed = runs.filter((run) => run.state === "completed");
  const { of, format } = measureOf(runs.map((run) => run.spend).filter(Boolean));
  const amount = (value) => (value === null ? "–" : format(value));
  const all = numbers(runs, (run) => run.spend && of(run.spend));
  const single = numbers(runs, (run) => run.median_arm && of(run.median_arm));
  const latencies = numbers(completed, (run) => (run.ended_ms - run.created_ms) / 1000);
  const over = numbers(completed, premium);
  const agreement = numbers(completed, (run) => run.agreement);
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, title),
    h("td", {}, digits(runs.length)),
    h("td", {}, percent(completed.length / runs.length)),
    h("td", {}, amount(quantile(all, 0.5))),
    h("td", {}, amount(quantile(all, 0.95))),
    h("td", {}, amount(quantile(single, 0.5))),
    h("td", {}, over.length ? times(quantile(over, 0.5)) : "–"),
    h("td", {}, seconds(quantile(latencies, 0.5))),
    h("td", {}, seconds(quantile(latencies, 0.95))),
    h(
      "td",
      {},
      agreement.length ? percent(agreement.reduce((sum, one) => sum + one, 0) / agreement.length) : "–",
    ),
  );
}

function numbers(runs, of) {
  return runs
    .map(of)
    .filter((value) => typeof value === "number")
    .sort((a, b) => a - b);
}

/** The value that a share of the sorted ones do not pass; null of none. */
function quantile(sorted, share) {
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] : null;
}
