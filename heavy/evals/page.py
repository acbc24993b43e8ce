"""The report as one HTML page: no script, nothing from elsewhere, readable in the dark and on a phone."""

from __future__ import annotations

from html import escape

from heavy.evals.plots import plots_of
from heavy.evals.report import Report
from heavy.evals.tables import Table, summary, tables_of

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-weight: 600; } svg { width: 100%; height: auto; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .7rem; border-bottom: 1px solid var(--line); }
td, th { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tbody tr:hover { background: var(--soft); }
.note { opacity: .75; max-width: 60rem; } .warning { border-left: 4px solid #e5851a; padding-left: 1rem; }
"""


def page(report: Report) -> str:
    """The whole page."""
    title = f"Evaluation: {report.asked.dataset}"
    said = "".join(_sentence(line) for line in summary(report).splitlines())
    drawn = plots_of(report.findings) if report.findings else []
    plots = "".join(f"<figure><figcaption>{escape(name)}</figcaption>{svg}</figure>" for name, svg in drawn)
    tables = "".join(map(_table, tables_of(report)))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{said}"
        f'<div class="plots">{plots}</div>{tables}{_setting(report)}</body></html>\n'
    )


def _sentence(line: str) -> str:
    warning = line.startswith("SIMULATED") or "no usable run" in line
    return f'<p class="{"warning" if warning else "said"}">{escape(line)}</p>'


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f"<h2>{escape(table.title)}</h2>{note}"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _setting(report: Report) -> str:
    asked = report.asked
    rows = [
        *(("dataset sha256", asked.digest), ("judge", asked.judge or "none")),
        *((name, str(value)) for name, value in sorted({**asked.policy, "seed": asked.seed}.items())),
    ]
    return _table(Table("How it was asked", ("setting", "value"), tuple(rows)))
