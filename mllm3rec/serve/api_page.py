"""Page of the HTTP interface: its paths, what they take and what they give; it loads nothing from elsewhere."""

from __future__ import annotations

import html
import json
from typing import Any

CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
pre { overflow-x: auto; padding: .8rem; border: 1px solid; border-radius: .4rem; font-size: .85rem }
h2 { margin-top: 2rem }
"""


def api_page(schema: dict[str, Any]) -> str:
    """One HTML page for all paths: what they do, what they take, and what they give."""
    parts = []
    for path, methods in schema["paths"].items():
        for method, one in methods.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(f"<p>{html.escape(one.get('description') or one.get('summary', ''))}</p>")
            body = one.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            answer = one["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema")
            parts += [
                _described(name, schema, shape) for name, shape in (("Request", body), ("Answer", answer)) if shape
            ]
    title = html.escape(f"{schema['info']['title']} {schema['info']['version']}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body><main>'
        f"<h1>{title}</h1><p>{html.escape(schema['info']['description'])} For tools: "
        f'<a href="openapi.json">openapi.json</a>; MCP clients connect to <code>/mcp</code>.</p>'
        f"{''.join(parts)}</main></body></html>"
    )


def _described(name: str, schema: dict[str, Any], shape: dict[str, Any]) -> str:
    definition = schema["components"]["schemas"].get(shape.get("$ref", "").rpartition("/")[2], shape)
    fields = {
        field: {
            key: value for key, value in about.items() if key in ("type", "description", "default", "anyOf", "items")
        }
        for field, about in definition.get("properties", {}).items()
    }
    text = json.dumps(fields, indent=1, ensure_ascii=False)
    return f"<details><summary>{name}</summary><pre>{html.escape(text)}</pre></details>"
