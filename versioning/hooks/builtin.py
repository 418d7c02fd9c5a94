"""The checks that need no code from anybody: they look at the diff as columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from versioning.columns import as_mask, compute, where
from versioning.entries import EntryKind
from versioning.errors import HooksFileError
from versioning.patterns import path_regex

if TYPE_CHECKING:
    import pyarrow as pa

    from versioning.diffs import Diff
    from versioning.hooks.config import Hook

MAX_FINDINGS = 1000
"""So many offending paths are looked for."""


class Refusal(NamedTuple):
    """Why a hook refuses: a reason, and the first offending paths, each with what is wrong with it."""

    reason: str
    findings: list[tuple[str, str]]


def run_built_in(hook: Hook, diff: Diff, *, bytes_before: int) -> Refusal | None:
    """Check a diff; None if the hook has nothing against it.

    Args:
        hook: One of the built-in kinds.
        diff: What would change, restricted to the paths that the hook looks at.
        bytes_before: Size of the version before.

    Raises:
        HooksFileError: If the JSON schema of the hook cannot be used.
    """
    value, new = hook.value, diff.only("A", "M").new_entries
    if hook.kind == "allowed_globs":
        kept = matching(new.column("path"), (*value, "/.ds/**"))  # or nobody could correct the hooks
        return _refusal("these paths are not allowed", where(new, ~kept))
    if hook.kind == "max_file_bytes":
        large = where(new, as_mask(compute.greater(new.column("size"), value)))
        sizes = [f"{size:,} bytes" for size in large.column("size").slice(0, MAX_FINDINGS).to_pylist()]
        return _refusal(f"files may have {value:,} bytes", large, sizes)
    if hook.kind == "max_total_bytes":
        after = bytes_before + _sum(diff.table.column("new_size")) - _sum(diff.table.column("old_size"))
        allowed = after <= value or after <= bytes_before  # what makes it smaller is welcome
        return None if allowed else Refusal(f"the version would have {after:,} bytes, and may have {value:,}", [])
    if hook.kind == "no_unpinned_external":
        return _unpinned(diff.new_entries)
    return _against_schema(hook, new)


def matching(paths: Any, patterns: tuple[str, ...]) -> Any:
    """Say for each path whether one of some patterns fits it."""
    regex = "|".join(f"(?:{path_regex(pattern)})" for pattern in patterns)
    return as_mask(compute.match_substring_regex(paths, pattern=regex))


def _unpinned(entries: pa.Table) -> Refusal | None:
    """Find objects of sources that are known by their times and size alone."""
    external = as_mask(compute.equal(entries.column("kind"), str(EntryKind.EXTERNAL)))
    unhashed = as_mask(compute.is_null(entries.column("oid")))
    weak = as_mask(compute.match_substring_regex(entries.column("version"), pattern=r"^$|^stat:|^etag:W/"))
    return _refusal("only times and size pin these objects of sources", where(entries, external & unhashed & weak))


def _against_schema(hook: Hook, entries: pa.Table) -> Refusal | None:
    validator = _validator(hook)
    findings: list[tuple[str, str]] = []
    for batch in entries.select(["path", "meta"]).to_batches(max_chunksize=4096):
        for path, meta in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
            wrong = _wrong_meta(validator, meta)
            if wrong:
                findings.append((str(path), wrong))
                if len(findings) == MAX_FINDINGS:
                    break
    return Refusal("their meta does not fit the schema", findings) if findings else None


def _validator(hook: Hook) -> Any:
    import jsonschema_rs  # takes 60 ms to load, and few repositories need it

    try:
        # A foreign schema neither fetches anything nor brings expressions that take for ever.
        return jsonschema_rs.validator_for(
            hook.value, offline=True, pattern_options=jsonschema_rs.RegexOptions(), validate_formats=True
        )
    except (ValueError, TypeError) as error:
        raise HooksFileError(f"hook {hook.id}: meta_schema: {str(error)[:300]}") from error


def _wrong_meta(validator: Any, meta: str | None) -> str:
    """Say what is wrong with the metadata of a file; a file without any is checked as null."""
    try:
        error = next(iter(validator.iter_errors(json.loads(meta) if meta is not None else None)), None)
    except ValueError as no_json:
        return f"it is no JSON: {no_json}"
    if error is None:
        return ""
    at = "/".join(str(part) for part in error.instance_path)
    return f"{f'{at}: ' if at else ''}{error.message[:200]}"


def _refusal(reason: str, entries: pa.Table, notes: list[str] | None = None) -> Refusal | None:
    if not entries.num_rows:
        return None
    paths = [str(path) for path in entries.column("path").slice(0, MAX_FINDINGS).to_pylist()]
    return Refusal(f"{reason} ({entries.num_rows:,})", list(zip(paths, notes or [""] * len(paths), strict=True)))


def _sum(column: Any) -> int:
    return int(compute.sum(column).as_py() or 0)
