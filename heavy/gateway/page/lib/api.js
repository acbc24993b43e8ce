// Requests to /api/v1. Whatever goes wrong is one kind of error, with words a person can act on.
import { credentials } from "./session.js";

const BASE = "/api/v1";

export class ApiError extends Error {
  constructor(status, { code = "internal", message = "", violations = [], retry_after_s = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.violations = violations;
    this.retryAfterS = retry_after_s;
  }

  /** Whether the same request may well succeed a little later. */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** Send a request; the response, whose status is a success. Raises ApiError, and AbortError when told to stop. */
export async function send(path, { headers = {}, ...options } = {}) {
  let response;
  try {
    response = await fetch(BASE + path, {
      cache: "no-store",
      credentials: "omit",
      ...options,
      headers: { ...credentials(), ...headers },
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, {
      code: "unreachable",
      message: "The server does not answer. It may be restarting, or the connection is lost.",
    });
  }
  if (!response.ok) throw new ApiError(response.status, await problemOf(response));
  return response;
}

async function problemOf(response) {
  try {
    return (await response.json()).error;
  } catch {
    return { code: "http", message: `The server answered ${response.status} ${response.statusText}.` };
  }
}

async function json(path, options) {
  return (await send(path, options)).json();
}

function post(path, body, options) {
  return json(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    ...options,
  });
}

export const server = (signal) => json("/server", { signal });
export const fleet = (signal) => json("/fleet", { signal });
export const run = (id, signal) => json(`/runs/${encodeURIComponent(id)}`, { signal });
export const ask = (body) => post("/runs", body);
export const cancel = (id) => post(`/runs/${encodeURIComponent(id)}/cancel`, {});

/** The content of a file of a run. */
export async function file(id, digest) {
  const path = `/runs/${encodeURIComponent(id)}/files/${encodeURIComponent(digest)}`;
  return (await send(path)).blob();
}

/** One page of runs. `states`: an array; `id`: how the run's id begins. */
export function runs({ states = [], id = "", pageToken = "", pageSize = 50 }, signal) {
  const query = new URLSearchParams(states.map((state) => ["states", state]));
  query.set("page_size", String(pageSize));
  if (id) query.set("id", id);
  if (pageToken) query.set("page_token", pageToken);
  return json(`/runs?${query}`, { signal });
}

/** A run's log in brief, page by page, from number `after` on. */
export async function* briefs(id, after, signal) {
  for (let more = true; more;) {
    const page = await json(`/runs/${encodeURIComponent(id)}/briefs?after=${after}`, { signal });
    yield page.records;
    ({ after, more } = page);
  }
}

/** Full records of one trajectory, those numbered `first` to `last`. */
export async function records(id, trajectory, first, last, signal) {
  const found = [];
  for (let after = first - 1, more = true; more && after < last;) {
    const query = new URLSearchParams({ trajectory, after: String(after), limit: "100" });
    const page = await json(`/runs/${encodeURIComponent(id)}/records?${query}`, { signal });
    found.push(...page.records.filter((record) => record.number <= last));
    ({ after, more } = page);
  }
  return found;
}
