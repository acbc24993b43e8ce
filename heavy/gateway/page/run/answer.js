// The answer: what it is, how it came about, who agrees, what speaks for it.
import { h } from "../lib/dom.js";
import { METHODS, laneName, percent } from "../lib/format.js";

/** Cards for a run's result or failure; `cited(lane, step)` hears which evidence was followed. */
export function answerCards(detail, cited) {
  const { result, failure } = detail;
  if (result) return [answerCard(detail, cited), agreementCard(result, cited)];
  if (failure) return [failureCard(failure, detail.summary.state, cited)];
  return [];
}

/** Where a step stands, as a part of the page's address. */
export function placeOf(lane, step) {
  return `#${lane}-${step ?? "end"}`;
}

function answerCard({ result, summary }, cited) {
  const short =
    result.short_answer && result.short_answer.trim() !== result.answer.trim()
      ? h("p", { class: "short" }, result.short_answer)
      : null;
  return h(
    "section",
    { class: "card answer", "aria-label": "Answer" },
    h("div", { class: "bar" }, h("h2", {}, "Answer"), h("span", { class: "quiet" }, METHODS[result.method])),
    result.abstained
      ? h("p", { class: "notice" }, "The aggregator abstained: it found no answer that it would stand by.")
      : short,
    result.answer ? h("div", { class: "prose" }, result.answer) : null,
    h("p", { class: "quiet small" }, `Answered by ${summary.models.map((model) => model.title).join(", ")}`),
    result.citations.length ? citations(result.citations, cited) : null,
  );
}

function citations(list, cited) {
  return h(
    "div",
    { class: "citations" },
    h("h3", {}, "Evidence"),
    h(
      "ul",
      {},
      list.map((one) => {
        const place = one.step === null ? ", last step" : `, step ${one.step + 1}`;
        return h(
          "li",
          {},
          h(
            "a",
            {
              href: placeOf(one.trajectory, one.step),
              on: { click: (event) => (event.preventDefault(), cited(one.trajectory, one.step)) },
            },
            `${laneName(one.trajectory)}${place}`,
          ),
          one.note ? h("span", { class: "quiet" }, ` ${one.note}`) : null,
        );
      }),
    ),
  );
}

function agreementCard({ agreement, dissent, method, short_answer: chosen }, cited) {
  const arms = agreement.groups.reduce((sum, group) => sum + group.arms.length, 0);
  return h(
    "section",
    { class: "card agreement", "aria-label": "Agreement" },
    h(
      "div",
      { class: "bar" },
      h("h2", {}, "Agreement"),
      arms ? h("span", { class: "quiet" }, `${percent(agreement.share)} say the same`) : null,
    ),
    arms
      ? h(
          "ol",
          { class: "groups" },
          agreement.groups.map((group, index) =>
            groupItem(group, index === 0, group.answer === chosen, arms, cited),
          ),
        )
      : h(
          "p",
          { class: "quiet" },
          method === "single"
            ? "One arm answered; there was nobody to agree with."
            : "No two answers could be compared.",
        ),
    dissent
      ? h("div", { class: "dissent" }, h("h3", {}, "Dissent"), h("div", { class: "prose" }, dissent))
      : null,
  );
}

function groupItem(group, leads, chosen, arms, cited) {
  const share = group.arms.length / arms;
  return h(
    "li",
    { class: `${leads ? "leading" : ""} ${chosen ? "chosen" : ""}` },
    h("div", { class: "said" }, group.answer || "(no answer)"),
    h(
      "div",
      { class: "share", role: "img", "aria-label": `${group.arms.length} of ${arms} arms` },
      h("span", { style: { width: `${share * 100}%` } }),
    ),
    h(
      "div",
      { class: "arms" },
      group.arms.map((arm) =>
        h("button", { type: "button", class: "plain", on: { click: () => cited(arm, null) } }, laneName(arm)),
      ),
    ),
  );
}

function failureCard(failure, state, cited) {
  return h(
    "section",
    { class: `card ended ${state}`, "aria-label": "No answer" },
    h("h2", {}, state === "cancelled" ? "Cancelled" : "No answer"),
    h("p", {}, failure.message),
    failure.outcomes.length
      ? h(
          "ul",
          { class: "outcomes" },
          failure.outcomes.map((outcome) =>
            h(
              "li",
              {},
              h(
                "button",
                { type: "button", class: "plain", on: { click: () => cited(outcome.trajectory, null) } },
                laneName(outcome.trajectory),
              ),
              h("span", { class: `pill ${outcome.kind}` }, outcome.kind),
              h("span", {}, outcome.reason),
              h("span", { class: "quiet" }, outcome.detail),
            ),
          ),
        )
      : null,
  );
}
