// What serves now, for operators: replicas and runners as they announce themselves.
import * as api from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { count } from "../lib/format.js";
import { failure } from "../parts.js";

const REFRESH_MS = 2_000;

export async function show(root, { signal }) {
  document.title = "Fleet · Heavy";
  const body = h("div", {});
  const wrong = h("div", {});
  fill(root, h("h1", {}, "Fleet"), wrong, body);
  draw(body, await api.fleet(signal));
  const timer = setInterval(refresh, REFRESH_MS);
  signal.addEventListener("abort", () => clearInterval(timer));

  async function refresh() {
    if (document.hidden) return;
    try {
      draw(body, await api.fleet(signal));
      fill(wrong);
    } catch (error) {
      if (error.status === 401) throw error;
      if (!signal.aborted) fill(wrong, failure(error));
    }
  }
}

function draw(root, { replicas, runners }) {
  fill(
    root,
    h("h2", {}, `Replicas (${replicas.length})`),
    replicas.length
      ? h("div", { class: "tiles" }, replicas.map(replica))
      : h("p", { class: "empty" }, "No replica announces itself: nothing can be asked."),
    h("h2", {}, `Runners (${runners.length})`),
    runners.length
      ? h("div", { class: "tiles" }, runners.map(runner))
      : h("p", { class: "empty" }, "No runner announces itself: runs wait."),
  );
}

function replica(info) {
  return h(
    "article",
    { class: "card tile" },
    h("h3", {}, info.replica, " ", h("span", { class: `pill ${info.state}` }, info.state)),
    h("p", { class: "quiet" }, `${info.model} · ${info.engine} · profile ${info.profile}`),
    gauge(
      "Generations",
      info.running,
      info.in_flight_max,
      `${info.running} running, ${info.waiting} waiting`,
    ),
    info.kv_tokens_max
      ? gauge(
          "KV cache",
          info.kv_tokens_used,
          info.kv_tokens_max,
          `${count(info.kv_tokens_used)} of ${count(info.kv_tokens_max)} tokens`,
        )
      : null,
    info.detail ? h("p", { class: "notice bad" }, info.detail) : null,
    h("p", { class: "quiet" }, h("code", {}, info.base_url), info.pid ? ` · pid ${info.pid}` : null),
  );
}

function runner(info) {
  return h(
    "article",
    { class: "card tile" },
    h("h3", {}, info.runner),
    gauge("Trajectories", info.in_flight, info.in_flight_max, `${info.in_flight} of ${info.in_flight_max}`),
    info.pid ? h("p", { class: "quiet" }, `pid ${info.pid}`) : null,
  );
}

function gauge(name, value, max, text) {
  return h(
    "div",
    { class: "gauge" },
    h("span", {}, name),
    h("meter", { min: 0, max, value, high: max * 0.85, "aria-label": `${name}: ${text}` }),
    h("span", { class: "quiet" }, text),
  );
}
