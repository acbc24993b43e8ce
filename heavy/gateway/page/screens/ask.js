// The box in which a run is started.
import * as api from "../lib/api.js";
import { fill, h } from "../lib/dom.js";

const FIELDS = {
  "policy.width": "width",
  "policy.cost_usd_max": "cost",
  "policy.deadline_s": "deadline",
  messages: "question",
  files: "files",
};

/** A form that asks; `asked` gets the run that was created. */
export function askBox(server, asked) {
  const models = server.models.map((model) =>
    h("option", { value: model.profile, selected: model.profile === server.default_profile }, model.title),
  );
  const question = h("textarea", {
    id: "question",
    rows: 3,
    required: true,
    placeholder: "Ask something hard…",
    "aria-label": "Question",
  });
  const width = h("input", {
    id: "width",
    type: "number",
    min: 1,
    max: server.width_max,
    value: server.width_default,
  });
  const cost = h("input", { id: "cost", type: "number", min: 0, step: "any", placeholder: "no cap" });
  const deadline = h("input", {
    id: "deadline",
    type: "number",
    min: 1,
    step: 1,
    max: server.deadline_max_s,
    placeholder: String(server.deadline_default_s),
  });
  const model = h(
    "select",
    { id: "model" },
    server.default_profile ? null : h("option", { value: "" }, "choose a model"),
    models,
  );
  const tools = server.tools.map((tool) =>
    h("label", { class: "check" }, h("input", { type: "checkbox", value: tool, checked: true }), tool),
  );
  const aggregation = h(
    "select",
    { id: "aggregation" },
    h("option", { value: "" }, "vote, else reflect"),
    h("option", { value: "vote" }, "vote only"),
    h("option", { value: "reflective" }, "always reflect"),
  );
  const files = h("input", { id: "files", type: "file", multiple: true });
  const button = h("button", { class: "primary", title: "Ctrl+Enter in the question" }, "Ask");
  const wrong = h("div", { "aria-live": "assertive" });
  // One id for as long as the question stays the same: a second press, or one after a lost answer, starts no second run.
  let request = { body: "", id: "" };

  const form = h(
    "form",
    { class: "card ask", "aria-label": "Ask", on: { submit } },
    question,
    h(
      "div",
      { class: "fields" },
      field("Model", model),
      field("Arms", width),
      field("At most, USD", cost),
      button,
    ),
    h(
      "details",
      {},
      h("summary", {}, "More"),
      h(
        "div",
        { class: "fields" },
        field("Deadline, s", deadline),
        field("Aggregation", aggregation),
        tools.length ? h("fieldset", {}, h("legend", {}, "Tools"), tools) : null,
        server.file_tools.length ? field(`Files for ${server.file_tools.join(", ")}`, files) : null,
      ),
    ),
    wrong,
  );
  question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  return form;

  function policy() {
    const boxes = tools.map((label) => label.querySelector("input"));
    const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
    return {
      width: Number(width.value) || undefined,
      arms: model.value ? [model.value] : undefined,
      cost_usd_max: cost.value ? Number(cost.value) : undefined,
      deadline_s: deadline.value ? Number(deadline.value) : undefined,
      aggregation: aggregation.value || undefined,
      tools: chosen.length < boxes.length ? chosen : undefined,
    };
  }

  function contents() {
    const chosen = server.file_tools.length ? [...files.files] : [];
    return Promise.all(chosen.map(async (file) => ({ name: file.name, content: await base64(file) })));
  }

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    fill(wrong);
    try {
      const body = { question: question.value.trim(), policy: policy(), files: await contents() };
      const text = JSON.stringify(body);
      if (request.body !== text) request = { body: text, id: newId() };
      asked(await api.ask({ ...body, request_id: request.id }));
    } catch (error) {
      complain(error);
    } finally {
      button.disabled = false;
    }
  }

  function complain(error) {
    const lines = error.violations?.length
      ? error.violations.map((v) => `${label(v.field)}: ${v.problem}`)
      : [error.message];
    fill(wrong, h("p", { class: "notice bad" }, lines.join("\n")));
    const first = error.violations?.map((v) => FIELDS[v.field]).find(Boolean);
    if (first) form.querySelector(`#${first}`).focus();
  }

  function label(path) {
    return form.querySelector(`label[for="${FIELDS[path]}"]`)?.textContent ?? path;
  }
}

function field(name, control) {
  return h("div", { class: "field" }, h("label", { for: control.id }, name), control);
}

/** The content of a file in base64. */
function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result.slice(reader.result.indexOf(",") + 1)));
    reader.addEventListener("error", () => reject(new Error(`${file.name} cannot be read.`)));
    reader.readAsDataURL(file);
  });
}

function newId() {
  return `page-${[...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
