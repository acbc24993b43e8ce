// The page: which screen an address means, who is signed in, and what to show when something is wrong.
import * as api from "./lib/api.js";
import { announce, fill, h } from "./lib/dom.js";
import { signOut, token } from "./lib/session.js";
import { keepAges, problem } from "./parts.js";
import { show as fleet } from "./screens/fleet.js";
import { show as run } from "./screens/run.js";
import { show as runs } from "./screens/runs.js";
import { show as signin } from "./screens/signin.js";
import { show as spend } from "./screens/spend.js";

const SCREENS = [
  [/^\/(?:runs)?$/, runs],
  [/^\/runs\/([^/]+)$/, run],
  [/^\/spend$/, spend],
  [/^\/fleet$/, fleet],
];

const main = document.getElementById("main");
let showing = new AbortController();
let server = null;

/** Show the screen of the present address, and move the focus into it. What the last one had going is stopped. */
async function route() {
  const first = main.contains(document.getElementById("loading"));
  showing.abort();
  showing = new AbortController();
  const { signal } = showing;
  const [screen, params] = match(location.pathname);
  try {
    server ??= await api.server(signal);
    drawHeader();
    await screen(main, { server, signal, go, params, query: new URLSearchParams(location.search) });
    if (!first) main.focus({ preventScroll: true });
    announce(document.title);
  } catch (error) {
    if (signal.aborted) return;
    fail(error);
  }
}

function match(path) {
  for (const [pattern, screen] of SCREENS) {
    const found = pattern.exec(path);
    if (found) return [screen, found.slice(1).map(decodeURIComponent)];
  }
  return [nothing, []];
}

async function nothing(root) {
  document.title = "Not found · Heavy";
  fill(
    root,
    problem(
      "There is no such page",
      "Runs are listed on the first screen.",
      h("a", { href: "/" }, "To the runs"),
    ),
  );
}

/** A screen that could not be shown: sign in, or say what is wrong and offer to try again. */
function fail(error) {
  if (error.status === 401) {
    const refused = token() ? error.message : "";
    signOut();
    server = null;
    drawHeader();
    return signin(main, { refused, done: route });
  }
  if (!(error instanceof api.ApiError)) console.error(error);
  const title =
    error.status === 0
      ? "The server is not there"
      : error.status === 404
        ? "There is no such run"
        : "That did not work";
  document.title = `${title} · Heavy`;
  const again = error.passing ? h("button", { type: "button", on: { click: route } }, "Try again") : null;
  fill(main, problem(title, error.message, again, h("a", { href: "/" }, "To the runs")));
  announce(`${title}. ${error.message}`);
}

function drawHeader() {
  for (const link of document.querySelectorAll(".top nav a")) {
    const here =
      link.pathname === "/" ? /^\/(runs.*)?$/.test(location.pathname) : link.pathname === location.pathname;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    if ("admin" in link.dataset) link.hidden = !server?.admin;
  }
  const out = h("button", { type: "button", class: "plain", on: { click: leave } }, "Sign out");
  fill(
    document.getElementById("who"),
    ...(server && !server.open ? [h("span", { class: "quiet" }, server.tenant), out] : []),
  );
}

function leave() {
  signOut();
  server = null;
  go("/");
}

function go(address) {
  history.pushState(null, "", address);
  window.scrollTo(0, 0);
  route();
}

/** Links within the page change the screen without loading it anew. */
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey)
    return;
  if (link.origin !== location.origin || link.hash) return;
  event.preventDefault();
  go(link.pathname + link.search);
});
window.addEventListener("popstate", route);
window.addEventListener("unhandledrejection", (event) => {
  if (event.reason?.name === "AbortError") event.preventDefault();
  else if (event.reason?.status === 401) (event.preventDefault(), fail(event.reason));
});
keepAges();
route();
