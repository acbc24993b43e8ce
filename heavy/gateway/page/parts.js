// Small things that several screens show.
import { h } from "./lib/dom.js";
import { ago, clockTime } from "./lib/format.js";

const AGE_TICK_MS = 15_000;

export const SIMULATED = "Simulated: no model spoke. What is said here is made up by a load generator.";

/** A run's state, as a word with a colour. */
export function statePill(state) {
  return h("span", { class: `pill ${state}` }, state);
}

/** What must stand wherever the simulated engine spoke. */
export function simulatedBadge() {
  return h("span", { class: "pill simulated", title: SIMULATED }, "simulated");
}

export function simulatedNotice() {
  return h(
    "p",
    { class: "notice simulated", role: "note" },
    h("strong", {}, "SIMULATED "),
    "No model spoke. What is said here is made up by a load generator.",
  );
}

/** How long ago something was; `keepAges` counts it on. */
export function when(ms) {
  return h("time", { datetime: new Date(ms).toISOString(), title: clockTime(ms) }, ago(ms));
}

/** Count on what `when` has put on the screen, for as long as the page is open. */
export function keepAges() {
  setInterval(() => {
    for (const time of document.querySelectorAll("time"))
      time.textContent = ago(Date.parse(time.dateTime));
  }, AGE_TICK_MS);
}

export function problem(title, message, ...actions) {
  return h(
    "section",
    { class: "problem", role: "alert" },
    h("h1", {}, title),
    h("p", {}, message),
    h("p", { class: "actions" }, actions),
  );
}

/** A line about something that failed within a screen; `retry` is what to do about it. */
export function failure(error, retry) {
  return h(
    "p",
    { class: "notice bad", role: "alert" },
    error.message,
    retry ? [" ", h("button", { type: "button", on: { click: retry } }, "Try again")] : null,
  );
}

/** A figure with its name below it. */
export function figure(value, name, title = null) {
  return h("div", { class: "figure", title }, h("strong", {}, value), h("span", {}, name));
}
