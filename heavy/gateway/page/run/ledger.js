// What was spent: per trajectory and in all, and against the arm in the middle.
import { h } from "../lib/dom.js";
import { digits, laneName, MEASURES, seconds, times, usd } from "../lib/format.js";

const COLUMNS = [
  ["Prompt", (spend) => digits(spend.tokens_prompt)],
  ["of it cached", (spend) => digits(spend.tokens_cached)],
  ["Output", (spend) => digits(spend.tokens_output)],
  ["of it reasoning", (spend) => digits(spend.tokens_reasoning)],
  ["Calls", (spend) => digits(spend.tool_calls)],
  ["Time", (spend) => seconds(spend.wall_s)],
  ["GPU\u2011s", (spend) => (spend.gpu_seconds ? spend.gpu_seconds.toFixed(1) : "–")],
  ["Cost", (spend) => usd(spend.cost_usd)],
];

/** `rows`: [trajectory, spend] pairs; `final`: whether more may come. */
export function ledgerCard(rows, total, cache, final) {
  return h(
    "section",
    { class: "card ledger", "aria-label": "Ledger" },
    h("div", { class: "bar" }, h("h2", {}, "Ledger"), h("span", { class: "quiet" }, final ? "" : "so far")),
    h(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": "Ledger, by trajectory" },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("th", { scope: "col" }, "Trajectory"),
            COLUMNS.map(([name]) => h("th", { scope: "col" }, name)),
          ),
        ),
        h(
          "tbody",
          {},
          rows.map(([name, spend]) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, laneName(name)),
              COLUMNS.map(([, show]) => h("td", {}, show(spend))),
            ),
          ),
        ),
        h(
          "tfoot",
          {},
          h(
            "tr",
            {},
            h("th", { scope: "row" }, "In all"),
            COLUMNS.map(([, show]) => h("td", {}, show(total))),
          ),
        ),
      ),
    ),
    cacheLine(cache),
  );
}

function cacheLine(cache) {
  const entries = Object.entries(cache);
  if (!entries.length) return null;
  return h(
    "p",
    { class: "facts" },
    "Tool results: ",
    entries.map(([state, number]) => h("span", { class: `cache ${state}` }, `${number} ${state}`)),
  );
}

/** Single against heavy: what the arm in the middle would have cost alone, and how long it took. */
export function premiumCard(summary, policy) {
  const { median_arm: arm, spend } = summary;
  if (!arm || !spend) return null;
  const wall = (summary.ended_ms - summary.created_ms) / 1000;
  const lines = [
    ...MEASURES.filter(({ of }) => of(spend) > 0).map(({ name, of, format }) => [
      name,
      format(of(arm)),
      format(of(spend)),
      ratio(of(spend), of(arm)),
    ]),
    ["Time", seconds(arm.wall_s), seconds(wall), ratio(wall, arm.wall_s)],
  ];
  return h(
    "section",
    { class: "card premium", "aria-label": "Single against heavy" },
    h(
      "div",
      { class: "bar" },
      h("h2", {}, "Single against heavy"),
      h("span", { class: "quiet" }, `the arm in the middle against ${policy.width} and the aggregation`),
    ),
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("td", {}),
          h("th", { scope: "col" }, "One arm"),
          h("th", { scope: "col" }, "This run"),
          h("th", { scope: "col" }, "Premium"),
        ),
      ),
      h(
        "tbody",
        {},
        lines.map(([name, one, all, factor]) =>
          h(
            "tr",
            {},
            h("th", { scope: "row" }, name),
            h("td", {}, one),
            h("td", {}, all),
            h("td", {}, factor ? times(factor) : "–"),
          ),
        ),
      ),
    ),
  );
}

function ratio(of, by) {
  return by > 0 ? of / by : null;
}
