"""The table of docs/providers.md, made from the catalog. `python -m tests.docs.providers_table` puts it into the page."""

from __future__ import annotations

from aigw.providers import catalog
from tests.docs.pages import ROOT

PAGE = ROOT / "docs/providers.md"
BEGIN, END = "<!-- table: made from aigw/providers/catalog.toml -->", "<!-- end of table -->"

EVIDENCE = {"high": "several", "medium": "some", "low": "one, old", "": "ours"}
CHECK = {"source": "yes", "inferred": "likely", "convention": "likely"}


def table() -> str:
    """Markdown, one line for each row."""
    rows = ["| `id` | Name | APIs | Key | Key check | Sources |", "|---|---|---|---|---|---|"]
    for row in map(catalog.row, catalog.ids()):
        name = f"{row.name}, {row.name_zh}" if row.name_zh and not row.name_zh.isascii() else row.name
        apis = ["OpenAI"] * bool(row.openai_surface or row.category == "generic") + ["Anthropic"] * bool(row.anthropic_url)
        apis = apis or ["its own"]
        key = f"`{row.env[0]}`" if row.env and row.auth != "none" else "-"
        check = CHECK.get(row.key_evidence, "tried" if row.models_url and row.protocol != "demo" else "-")
        status = "" if row.status == "active" else f" ({row.status})"
        linked = f"[{name}]({row.docs_url})" if row.docs_url else name
        served = ", ".join(apis) if row.served else "not yet"
        rows.append(f"| `{row.id}` | {linked}{status} | {served} | {key} | {check} | {EVIDENCE[row.evidence]} |")
    return "\n".join(rows)


def with_table(page: str) -> str:
    """*page* with the table as it should be."""
    head, _, rest = page.partition(BEGIN)
    _, _, foot = rest.partition(END)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{foot}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
