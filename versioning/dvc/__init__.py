"""DVC projects: what their files say, their history as commits, and a version as a project. Needs no DVC."""

from __future__ import annotations

from sources.lazy import lazily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from versioning.dvc.documents import (
        MAX_FILE_BYTES,
        Pipeline,
        listing_bytes,
        load_yaml,
        parse_dvc_file,
        parse_listing,
        parse_lock,
        parse_pipeline,
        parse_remotes,
    )
    from versioning.dvc.errors import DvcError, DvcFileError, DvcForeignFileError, DvcObjectMissingError
    from versioning.dvc.importing import DvcImporter, GitCommit, ImportCounts
    from versioning.dvc.layout import MARK, DvcFile, HashedFile, check_layout, plan_outputs
    from versioning.dvc.outputs import CloudFile, Output, check_disjoint
else:
    __getattr__ = lazily(
        __name__,
        {
            "documents": (
                "MAX_FILE_BYTES",
                "Pipeline",
                "listing_bytes",
                "load_yaml",
                "parse_dvc_file",
                "parse_listing",
                "parse_lock",
                "parse_pipeline",
                "parse_remotes",
            ),
            "errors": ("DvcError", "DvcFileError", "DvcForeignFileError", "DvcObjectMissingError"),
            "importing": ("DvcImporter", "GitCommit", "ImportCounts"),
            "layout": ("MARK", "DvcFile", "HashedFile", "check_layout", "plan_outputs"),
            "outputs": ("CloudFile", "Output", "check_disjoint"),
        },
    )

__all__ = [
    "MARK",
    "MAX_FILE_BYTES",
    "CloudFile",
    "DvcError",
    "DvcFile",
    "DvcFileError",
    "DvcForeignFileError",
    "DvcImporter",
    "DvcObjectMissingError",
    "GitCommit",
    "HashedFile",
    "ImportCounts",
    "Output",
    "Pipeline",
    "check_disjoint",
    "check_layout",
    "listing_bytes",
    "load_yaml",
    "parse_dvc_file",
    "parse_listing",
    "parse_lock",
    "parse_pipeline",
    "parse_remotes",
    "plan_outputs",
]
