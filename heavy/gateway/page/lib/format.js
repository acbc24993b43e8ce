// Numbers as people read them. Every function takes plain numbers with the unit in its name.

export const LIVE = new Set(["accepted", "running", "aggregating"]);

/** Seconds: 840 ms, 12.3 s, 3 min 12 s, 1 h 04 min. */
export function seconds(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
}

/** US dollars, to two digits that mean something. */
export function usd(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "$0";
  if (value < 0.0001) return "<$0.0001";
  return `$${value.toFixed(value < 0.01 ? 4 : value < 1 ? 3 : 2)}`;
}

/** Counts: 950, 12.3k, 4.1M. */
export function count(value) {
  if (value < 1000) return String(Math.round(value));
  if (value < 1e6) return `${(value / 1e3).toFixed(value < 1e4 ? 1 : 0)}k`;
  return `${(value / 1e6).toFixed(1)}M`;
}

/** All digits, grouped. */
export function digits(value) {
  return Math.round(value).toLocaleString("en");
}

export function percent(share) {
  return `${Math.round(share * 100)}%`;
}

/** How many times: ×8.3. */
export function times(factor) {
  return `×${factor < 10 ? factor.toFixed(1) : Math.round(factor)}`;
}

/** What a spend is counted in, the most telling first. */
export const MEASURES = [
  { name: "Cost", of: (spend) => spend.cost_usd, format: usd },
  { name: "GPU time", of: (spend) => spend.gpu_seconds, format: (value) => `${value.toFixed(1)} GPU-s` },
  {
    name: "Tokens",
    of: (spend) => spend.tokens_prompt + spend.tokens_output,
    format: (value) => `${count(value)} tok`,
  },
];

/** Money where any of these spends has a price, else GPU time, else tokens. */
export function measureOf(spends) {
  return MEASURES.find((one) => spends.some((spend) => one.of(spend) > 0)) ?? MEASURES.at(-1);
}

/** What was spent, in its measure. */
export function spent(spend) {
  if (!spend) return "–";
  const { of, format } = measureOf([spend]);
  return format(of(spend));
}

/** How much more a run cost than its median arm; null where that cannot be said. */
export function premium(run) {
  const { spend, median_arm: arm } = run;
  if (!spend || !arm) return null;
  if (arm.cost_usd > 0) return spend.cost_usd / arm.cost_usd;
  return (spend.tokens_prompt + spend.tokens_output) / (arm.tokens_prompt + arm.tokens_output);
}

/** How long ago: just now, 3 min ago, 5 h ago; a date beyond a week. */
export function ago(ms) {
  const s = Math.max(0, (Date.now() - ms) / 1000);
  if (s < 45) return "just now";
  if (s < 3600) return `${Math.max(1, Math.round(s / 60))} min ago`;
  if (s < 86400) return `${Math.round(s / 3600)} h ago`;
  if (s < 7 * 86400) return `${Math.round(s / 86400)} d ago`;
  return new Date(ms).toLocaleDateString("en-CA");
}

export function clockTime(ms) {
  return new Date(ms).toLocaleString("sv-SE");
}

/** arm-0 as people count: Arm 1. */
export function laneName(trajectory) {
  return trajectory === "aggregator" ? "Aggregator" : `Arm ${Number(trajectory.slice(4)) + 1}`;
}

export function laneShort(trajectory) {
  return trajectory === "aggregator" ? "Agg" : `A${Number(trajectory.slice(4)) + 1}`;
}

export const METHODS = {
  vote: "by vote",
  reflective: "by the reflective pass",
  single: "by the only arm that came to an answer",
};
