// Following a run: server-sent events read by fetch, because EventSource cannot send a token. A connection that is lost
// or silent is taken up again from the last record number, so nothing is missed and nothing comes twice.
import { ApiError, send } from "./api.js";

const SILENCE_MS = 45_000; // three times as long as the server is ever silent
const PAUSE_FIRST_MS = 500;
const PAUSE_MAX_MS = 15_000;

/**
 * Yields {type: "record" | "deltas", data} until the run has ended. `tell` hears {live} or {retryInMs, error}.
 * Raises ApiError for what waiting does not mend.
 */
export async function* follow(id, after, { signal, tell }) {
  for (let pauseMs = PAUSE_FIRST_MS; !signal.aborted; pauseMs = Math.min(PAUSE_MAX_MS, pauseMs * 2)) {
    try {
      for await (const event of connection(id, after, signal, () => tell({ live: true }))) {
        pauseMs = PAUSE_FIRST_MS;
        if (event.type === "end") return;
        if (event.type === "problem") throw new ApiError(503, JSON.parse(event.data));
        if (event.id) after = Number(event.id);
        yield { type: event.type, data: JSON.parse(event.data) };
      }
      tell({ retryInMs: pauseMs }); // the server closed the stream: it is going down
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError && (!error.passing || error.code === "not_found")) throw error;
      tell({ retryInMs: pauseMs, error });
    }
    await pause(pauseMs, signal);
  }
}

/** The events of one connection. */
async function* connection(id, after, signal, opened) {
  const silence = new AbortController();
  const stop = AbortSignal.any([signal, silence.signal]);
  let timer = setTimeout(() => silence.abort(), SILENCE_MS);
  try {
    const response = await send(`/runs/${encodeURIComponent(id)}/events`, {
      signal: stop,
      headers: { Accept: "text/event-stream", "Last-Event-ID": String(after) },
    });
    opened();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new Parser();
    for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
      yield* parser.feed(chunk.value);
    }
  } finally {
    clearTimeout(timer);
    silence.abort();
  }
}

/** Text to events, as the HTML standard's section on server-sent events has it; comments fall out. */
export class Parser {
  #rest = "";

  *feed(text) {
    const blocks = (this.#rest + text).split("\n\n");
    this.#rest = blocks.pop();
    for (const block of blocks) {
      const event = { type: "message", id: "", data: "" };
      for (const line of block.split("\n")) {
        const colon = line.indexOf(": ");
        const [field, value] = colon < 0 ? [line, ""] : [line.slice(0, colon), line.slice(colon + 2)];
        if (field === "event") event.type = value;
        else if (field === "id") event.id = value;
        else if (field === "data") event.data += event.data ? `\n${value}` : value;
      }
      if (event.data) yield event;
    }
  }
}

/** Wait; shorter when the browser says that it is connected again. */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      window.removeEventListener("online", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    window.addEventListener("online", done);
    signal.addEventListener("abort", done);
  });
}
