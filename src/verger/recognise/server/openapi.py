"""What the server can be asked, as OpenAPI 3.1."""

from typing import Any

from verger.recognise.recogniser import Answer
from verger.version import VERSION

PROBLEM = {
    "type": "object",
    "required": ["status", "detail"],
    "properties": {"status": {"type": "integer"}, "detail": {"type": "string"}},
}

PROBLEMS = {
    "400": "There is no photograph in the request, or it did not arrive whole.",
    "408": "The photograph arrives too slowly.",
    "413": "It has too many bytes or pixels.",
    "415": "It is no image, or of a format that is not read.",
    "422": "It is a damaged image, or a parameter is wrong.",
    "429": "Too many photographs at once; try again after the seconds in Retry-After.",
    "503": "The answer took too long.",
}


def describe(max_bytes: int, labels: tuple[str, ...]) -> dict[str, Any]:
    """The document."""
    body = {
        "required": True,
        "description": f"The file itself, up to {max_bytes:,} bytes.",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("image/*", "application/octet-stream")
        },
    }
    answer = Answer.model_json_schema(ref_template="#/components/schemas/{model}")
    parts = answer.pop("$defs")
    parts["Guess"]["properties"]["name"] = {
        "description": "What the class is called; null where it is not known.",
        "type": ["object", "null"],
        "properties": {key: {"type": "string"} for key in ("en", "fr", "botanical", "family")},
    }
    parts["Similar"]["properties"]["picture"] = {"type": "string"}
    label = {"type": "string", "enum": list(labels)}
    consent = {"type": "string", "enum": ["yes"]}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "verger",
            "version": VERSION,
            "description": "Says what a photograph of a fruit shows. Photographs are not stored.",
        },
        "paths": {
            "/api/classify": {
                "post": {
                    "summary": "What a photograph shows",
                    "requestBody": body,
                    "responses": _responses("200", "The likeliest classes.", "Answer"),
                }
            },
            "/api/corrections": {
                "post": {
                    "summary": "Keep a photograph under its class, if its sender agrees",
                    "parameters": [
                        {"name": name, "in": "query", "required": True, "schema": schema}
                        for name, schema in (("label", label), ("consent", consent))
                    ],
                    "requestBody": body,
                    "responses": _responses("201", "It is kept.", "Kept")
                    | {
                        "403": _problem("This server keeps no photographs."),
                        "507": _problem("It cannot be written."),
                    },
                }
            },
            "/health": {
                "get": {
                    "summary": "That it runs",
                    "responses": {"200": _json("How long the queue is.", "Health")},
                }
            },
        },
        "components": {
            "schemas": {
                **parts,
                "Answer": answer,
                "Problem": PROBLEM,
                "Kept": {"type": "object", "properties": {"kept": {"type": "string"}}},
                "Health": {
                    "type": "object",
                    "properties": {"status": {"type": "string"}, "waiting": {"type": "integer"}},
                },
            }
        },
    }


def _responses(status: str, description: str, schema: str) -> dict[str, Any]:
    problems = {status: _problem(text) for status, text in PROBLEMS.items()}
    return {status: _json(description, schema), **problems}


def _json(description: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}


def _problem(description: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": description, "content": content}
