"""Hooks: checks that a branch asks for before commits and merges, in `.ds/hooks.yaml` of its head.

They run where the commit is made: whoever does not want them can leave them out, so they keep from mistakes, not from
malice. Built-in checks always run; commands and entry points only if the user trusts them.
"""

from __future__ import annotations

from sources.lazy import lazily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from versioning.hooks.config import Hook, parse_hooks
    from versioning.hooks.gate import Gate, Outcome
    from versioning.hooks.proposals import HOOKS_PATH, HookContext, HookEvent, Proposal
else:
    __getattr__ = lazily(
        __name__,
        {
            "config": ("Hook", "parse_hooks"),
            "gate": ("Gate", "Outcome"),
            "proposals": ("HOOKS_PATH", "HookContext", "HookEvent", "Proposal"),
        },
    )

__all__ = ["HOOKS_PATH", "Gate", "Hook", "HookContext", "HookEvent", "Outcome", "Proposal", "parse_hooks"]
