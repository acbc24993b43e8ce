// Signing in with a bearer token.
import { fill, h } from "../lib/dom.js";
import { signIn } from "../lib/session.js";

export function show(root, { refused, done }) {
  document.title = "Sign in · Heavy";
  const field = h("input", {
    id: "token",
    type: "password",
    autocomplete: "current-password",
    spellcheck: "false",
    required: true,
    pattern: "\\s*[!-~]+\\s*", // anything else cannot be sent in a header
    title: "Letters, digits and signs of ASCII, without spaces",
    "aria-describedby": refused ? "refused" : null,
    "aria-invalid": refused ? "true" : null,
  });
  const form = h(
    "form",
    {
      class: "card signin",
      on: {
        submit(event) {
          event.preventDefault();
          signIn(field.value.trim());
          done();
        },
      },
    },
    h("h1", {}, "Sign in"),
    h(
      "p",
      { class: "quiet" },
      "This server asks for a bearer token. It stays in this tab, and goes nowhere but to this server.",
    ),
    h("label", { for: "token" }, "Token"),
    field,
    refused ? h("p", { class: "notice bad", id: "refused", role: "alert" }, refused) : null,
    h("button", { class: "primary" }, "Sign in"),
  );
  fill(root, form);
  field.focus();
}
