"""The worker's description in OpenAPI 3.1; `python -m cache_runtime.worker.openapi` writes it for the documents."""

from __future__ import annotations

import json
import sys
from typing import Any

from cache_runtime import protocol
from cache_runtime.protocol import BATCH_TYPE, BLOCKS_HEADER, REQUEST_HEADER, SOURCE_HEADER, ErrorKind

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_NAME: Json = {"type": "string", "minLength": 1, "description": f"At most {protocol.MAX_NAME_BYTES} bytes of UTF-8."}
_ID: Json = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
_LOAD_ID: Json = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}
_SIZE: Json = {"type": "integer", "minimum": 1, "maximum": protocol.MAX_OBJECT_BYTES}
_REF = "#/components/schemas/"
_SHARE: Json = {
    "share": {"type": "string", "description": "Share of what is filled; at most 255 bytes of UTF-8."},
    "priority": {"type": "integer", "minimum": -(1 << 31), "maximum": (1 << 31) - 1},
    "quota_bytes": {"type": "integer", "minimum": 0},
    "cycle_bytes": {"type": "integer", "minimum": 0},
}


def describe() -> Json:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Forebay worker",
            "version": "1",
            "description": "A node's cache over HTTP. Wire format: docs/reference/worker-api.md.",
        },
        "security": [{"token": []}],
        "paths": {
            protocol.OBJECTS_PATH + "{id}": {"get": _get_object(), "head": _get_object(head=True)},
            protocol.BATCH_PATH: {"post": _post_batch()},
            protocol.PRESENT_PATH: {"post": _post("present", "Pieces", "Missing", "What is not here.", 413, 429)},
            protocol.EVICT_PATH: {"post": _post("evict", "Evict", "Freed", "Give room back.", 413, 429, 503)},
            protocol.LOAD_PATH: {"post": _post_load()},
            protocol.LOADS_PATH: {"get": _get("listLoads", "All loads, newest first.", "Loads", 503)},
            protocol.LOADS_PATH + "/{id}": {
                "parameters": [_parameter("id", "path", _LOAD_ID, required=True)],
                "get": _get("getLoad", "How far a load is.", "Load", 404, 503),
                "delete": _get("cancelLoad", "Cancel a load; what it cached stays.", "Load", 404, 503),
            },
            protocol.STATS_PATH: {"get": _get("getStats", "What the worker holds and did.", "Stats")},
            protocol.OPENAPI_PATH: {"get": _get("describe", "This document.", "Any")},
            protocol.METRICS_PATH: {"get": _get_metrics()},
            protocol.HEALTH_PATH: {"get": _open(_get("getHealth", "The process lives.", "Any"))},
            protocol.READY_PATH: {"get": _open(_get("getReady", "Readers may be sent here.", "Any", 503))},
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
    }


def _get_object(*, head: bool = False) -> Json:
    query = [("store", _NAME), ("key", _NAME), ("version", _NAME), ("size", _SIZE)]
    parameters = [_parameter("id", "path", _ID, required=True)]
    parameters += [_parameter(name, "query", schema, required=True) for name, schema in query]
    parameters.append(_parameter("fill", "query", {"type": "string", "enum": ["0", "1"]}))
    parameters += [_parameter(name, "query", schema) for name, schema in _SHARE.items()]
    parameters.append(_parameter("Range", "header", {"type": "string", "pattern": "^bytes=[0-9]{1,18}-[0-9]{0,18}$"}))
    headers = {
        name: {"schema": _TEXT, "description": text}
        for name, text in (
            (SOURCE_HEADER, "local or filled: where the first byte came from"),
            (BLOCKS_HEADER, "first block, and the checksums of blocks from it on, when the range begins at a block"),
            (REQUEST_HEADER, "the request's id, chosen by its sender or the worker"),
        )
    }
    good: Json = {"description": "The bytes.", "headers": headers}
    if not head:
        good["content"] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    statuses = (400, 401, 403, 404, 416) if head else (400, 401, 403, 404, 409, 416, 429, 502, 503, 504)
    return {
        "operationId": "headObject" if head else "getObject",
        "summary": "Headers of what is here; never fills." if head else "Bytes of one object.",
        "parameters": parameters,
        "responses": {"200": good, "206": good, **_errors(*statuses, head=head)},
    }


def _post_batch() -> Json:
    answer = {"description": "One frame for each item.", "content": {BATCH_TYPE: {"schema": {"format": "binary"}}}}
    return {
        "operationId": "batch",
        "summary": "Many ranges in one answer.",
        "requestBody": _body("Batch"),
        "responses": {"200": answer, **_errors(400, 401, 408, 413, 429)},
    }


def _post_load() -> Json:
    operation = _post("load", "LoadRequest", "Load", "Cache some pieces in the background.", 403, 413, 429, 503)
    operation["responses"]["202"] = _answer("Load", "The load, begun now or before.")
    del operation["responses"]["200"]
    return operation


def _post(name: str, body: str, answer: str, summary: str, *statuses: int) -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": _body(body),
        "responses": {"200": _answer(answer, summary), **_errors(400, 401, 408, *statuses)},
    }


def _get(name: str, summary: str, answer: str, *statuses: int) -> Json:
    responses = {"200": _answer(answer, summary), **_errors(401, *statuses)}
    return {"operationId": name, "summary": summary, "responses": responses}


def _get_metrics() -> Json:
    answer = {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": _TEXT}}}
    return {"operationId": "getMetrics", "summary": "Metrics.", "responses": {"200": answer, **_errors(401)}}


def _open(operation: Json) -> Json:
    """Probes carry no token."""
    return {**operation, "security": []}


def _parameter(name: str, place: str, schema: Json, *, required: bool = False) -> Json:
    return {"name": name, "in": place, "required": required, "schema": schema}


def _body(schema: str) -> Json:
    return {"required": True, "content": {"application/json": {"schema": {"$ref": _REF + schema}}}}


def _answer(schema: str, description: str) -> Json:
    return {"description": description, "content": {"application/json": {"schema": {"$ref": _REF + schema}}}}


def _errors(*statuses: int, head: bool = False) -> Json:
    texts = {
        400: "The request is malformed, or the id is another object's.",
        401: "No good token.",
        403: "The object's store is not one of this worker's.",
        404: "Not cached, not at its origin, or no such load.",
        408: "The body came too slowly.",
        409: "The origin has another version.",
        413: "Over a limit of one request.",
        416: "The range selects nothing.",
        429: "Over a limit for now; see Retry-After.",
        502: "The origin failed.",
        503: "Leaving, off, or without this function; see Retry-After.",
        504: "The fill took too long.",
    }
    return {str(n): {"description": texts[n]} if head else _answer("Error", texts[n]) for n in sorted(statuses)}


def _schemas() -> Json:
    error = _object({"kind": {"type": "string", "enum": [kind.value for kind in ErrorKind]}, "message": _TEXT})
    piece = _row(_COUNT, _COUNT, "store, key, version, size, first block, last block")
    item = _row(_COUNT, _COUNT, "store, key, version, size, offset, length")
    runs = {"type": "array", "items": {"type": "array", "items": _COUNT, "minItems": 2, "maxItems": 2}}
    load = _object({"id": _LOAD_ID, "state": _TEXT}, extra=True)
    flags = {"fill": {"type": "boolean"}, "bodies": {"type": "boolean"}}
    # requests may have fields that this version does not know: workers and callers are not replaced at once
    ids = {"type": "array", "items": _ID, "maxItems": protocol.MAX_PRESENT_PIECES}
    evictions: list[Json] = [{"ids": ids}, {"share": _SHARE["share"]}, {"bytes": _SIZE}]
    return {
        "Any": {"type": "object"},
        "Error": _object({"error": error}),
        "Batch": _object(
            {"items": _rows(item, protocol.MAX_BATCH_ITEMS), **flags, **_SHARE}, required=["items"], extra=True
        ),
        "Pieces": _object({"pieces": _rows(piece, protocol.MAX_PRESENT_PIECES)}, extra=True),
        "Missing": _object({"missing": {"type": "array", "items": runs}}),
        "Evict": {"oneOf": [_object(one, extra=True) for one in evictions]},
        "Freed": _object({"freed_bytes": _COUNT}),
        "LoadRequest": _object(
            {
                "id": _LOAD_ID,
                "pieces": _rows(piece, protocol.MAX_LOAD_PIECES),
                "deadline_seconds": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 2592000},
                **_SHARE,
            },
            required=["id", "pieces"],
            extra=True,
        ),
        "Load": load,
        "Loads": _object({"loads": {"type": "array", "items": load}}),
        "Stats": _object({"name": _TEXT, "url": _TEXT, "draining": {"type": "boolean"}}, extra=True),
    }


def _object(properties: Json, *, required: list[str] | None = None, extra: bool = False) -> Json:
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": extra}


def _rows(row: Json, limit: int) -> Json:
    return {"type": "array", "items": row, "maxItems": limit}


def _row(fifth: Json, sixth: Json, description: str) -> Json:
    columns = [_NAME, _NAME, _NAME, _SIZE, fifth, sixth]
    return {"type": "array", "prefixItems": columns, "minItems": 6, "maxItems": 6, "description": description}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(describe(), indent=2) + "\n")
