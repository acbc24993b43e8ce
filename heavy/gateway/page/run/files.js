// Files of a run: what its caller gave and what its tools made, to be saved.
import * as api from "../lib/api.js";
import { announce, h } from "../lib/dom.js";
import { digits } from "../lib/format.js";
import { failure } from "../parts.js";

/** A list of `files` of a run, each a button that saves it; null for none. */
export function fileList(runId, files, label) {
  if (!files?.length) return null;
  return h(
    "ul",
    { class: "facts files", "aria-label": label },
    files.map((file) => h("li", {}, fileButton(runId, file))),
  );
}

function fileButton(runId, file) {
  const said = `${file.name} (${digits(file.size_bytes)} bytes)`;
  if (!file.digest) return h("span", { class: "quiet" }, `${said} was not kept: the run had no room for it`);
  const button = h("button", { type: "button", title: `Save ${file.name}` }, said);
  button.addEventListener("click", () => save(runId, file, button));
  return button;
}

/** Fetched rather than linked to: a link could carry no token. */
async function save(runId, file, button) {
  button.disabled = true;
  try {
    const url = URL.createObjectURL(await api.file(runId, file.digest));
    h("a", { href: url, download: file.name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    announce(`${file.name} was saved.`);
  } catch (error) {
    button.after(failure(error));
  } finally {
    button.disabled = false;
  }
}
