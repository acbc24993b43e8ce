// Runs as points over time. One path a series, however many points: what a browser draws fast, and styles by CSS.
import { announce, fill, h, svg } from "../lib/dom.js";
import { clockTime } from "../lib/format.js";

const H = 240;
const EDGE = { left: 58, right: 12, top: 10, bottom: 26 };
const NEAR = 18;
const SECONDS_BELOW_MS = 600_000; // a shorter stretch of time is told to the second
const LOG_FROM = 30; // a span wider than this factor is drawn on a logarithmic scale

/**
 * `series`: [{name, points: [{x: ms, y, run}]}]; `format` writes a y, `tick` one at the axis; `chosen(run)` hears which
 * point was clicked, or entered after the arrow keys led there. Every y is above zero.
 */
export function scatter(title, series, { format, tick: written = format, chosen }) {
  const points = series.flatMap((one, index) => one.points.map((point) => ({ ...point, series: index })));
  if (!points.length)
    return h(
      "figure",
      { class: "chart card" },
      h("figcaption", {}, title),
      h("p", { class: "empty" }, "Nothing to draw yet."),
    );
  // Text in a picture shrinks with it: on a narrow screen the picture is drawn narrower.
  const W = Math.max(340, Math.min(640, document.documentElement.clientWidth - 40));
  const x = timeScale(
    points.map((point) => point.x),
    W,
  );
  const y = valueScale(points.map((point) => point.y));
  const dot = svg("circle", { class: "here", r: 5, cx: -9, cy: -9 });
  const picture = svg(
    "svg",
    {
      viewBox: `0 0 ${W} ${H}`,
      role: "img",
      "aria-label": `${title}: ${points.length} runs, from ${format(y.least)} to ${format(y.most)}`,
    },
    y.ticks.map((tick) => [
      svg("line", { class: "grid", x1: EDGE.left, x2: W - EDGE.right, y1: y.at(tick), y2: y.at(tick) }),
      svg(
        "text",
        { class: "axis", x: EDGE.left - 6, y: y.at(tick) + 4, "text-anchor": "end" },
        written(tick),
      ),
    ]),
    x.ticks.map((tick) =>
      svg("text", { class: "axis", x: x.at(tick.ms), y: H - 8, "text-anchor": "middle" }, tick.text),
    ),
    series.map((one, index) =>
      svg("path", {
        class: `dots series-${index % 6}`,
        d: one.points.map((point) => `M${x.at(point.x).toFixed(1)} ${y.at(point.y).toFixed(1)}h0`).join(""),
      }),
    ),
    dot,
  );
  const said = h("span", { class: "quiet hover", "aria-hidden": "true" });
  let near = null;
  const show = (point) => {
    near = point;
    dot.setAttribute("cx", near ? x.at(near.x) : -9);
    dot.setAttribute("cy", near ? y.at(near.y) : -9);
    fill(said, near ? `${format(near.y)} · ${clockTime(near.x)} · ${near.run.question.slice(0, 60)}` : "");
    picture.classList.toggle("hit", Boolean(near));
  };
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const atX = ((event.clientX - box.left) / box.width) * W;
    const atY = ((event.clientY - box.top) / box.height) * H;
    show(nearest(points, x, y, atX, atY));
  });
  picture.addEventListener("click", () => near && chosen(near.run));
  const plot = h(
    "div",
    {
      tabindex: 0,
      role: "group",
      "aria-label": `${title}. Left and right arrows go from run to run, Enter opens one.`,
    },
    picture,
  );
  const inTime = points.toSorted((a, b) => a.x - b.x);
  plot.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && near) return chosen(near.run);
    const at = inTime.indexOf(near);
    const steps = { ArrowRight: at + 1, ArrowLeft: at < 0 ? inTime.length - 1 : at - 1, Home: 0, End: Infinity };
    const to = steps[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(inTime[Math.max(0, Math.min(inTime.length - 1, to))]);
    announce(said.textContent);
  });
  return h("figure", { class: "chart card" }, h("figcaption", {}, title, said), plot);
}

function nearest(points, x, y, atX, atY) {
  let best = null;
  let least = NEAR;
  for (const point of points) {
    const away = Math.hypot(x.at(point.x) - atX, y.at(point.y) - atY);
    if (away < least) [best, least] = [point, away];
  }
  return best;
}

function timeScale(values, W) {
  const from = Math.min(...values);
  const to = Math.max(Math.max(...values), from + 60_000);
  const at = (ms) => EDGE.left + 6 + ((ms - from) / (to - from)) * (W - EDGE.left - EDGE.right - 12);
  const days = to - from > 2 * 86_400_000;
  const brief = to - from < SECONDS_BELOW_MS;
  const ticks = [0.08, 0.36, 0.64, 0.92].map((share) => {
    const ms = from + share * (to - from);
    const text = clockTime(ms);
    return { ms, text: days ? text.slice(5, 10) : text.slice(11, brief ? 19 : 16) };
  });
  return { at, ticks };
}

function valueScale(values) {
  const least = Math.min(...values);
  const most = Math.max(...values);
  const height = H - EDGE.top - EDGE.bottom;
  if (most / least > LOG_FROM) {
    const [low, high] = [Math.floor(Math.log10(least)), Math.ceil(Math.log10(most))];
    const at = (value) => EDGE.top + (1 - (Math.log10(value) - low) / (high - low)) * height;
    return {
      at,
      least,
      most,
      ticks: Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index)),
    };
  }
  const step = niceStep(most / 4);
  const top = Math.ceil(most / step) * step;
  const at = (value) => EDGE.top + (1 - value / top) * height;
  return {
    at,
    least,
    most,
    ticks: Array.from({ length: Math.round(top / step) + 1 }, (_, index) => index * step),
  };
}

function niceStep(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= value);
}
