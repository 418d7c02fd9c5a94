"""All commands of `ds`: naming them here loads none of them."""

from __future__ import annotations

COMMANDS = {
    "": {
        "apply": ("datasets:apply_command", "Make what a YAML file declares true on this machine."),
        "init": (
            "cloning:init_command",
            "Create a repository: in a directory, whose files can be added then, or at a URI, to be cloned.",
        ),
        "clone": (
            "cloning:clone_command",
            "Make a working copy: the files of a version in a directory, to look at, change and commit.",
        ),
        "get": (
            "datasets:get_command",
            "List the datasets of this machine, or the objects of a kind with the columns that a cluster shows.",
        ),
        "describe": (
            "datasets:describe_command",
            "Show an object as it was declared, how it is, and what happened to it.",
        ),
        "watch": (
            "datasets:watch_command",
            "Show the objects of a kind, and each again when it changes; begin the operations whose time has come.",
        ),
        "delete": (
            "datasets:delete_command",
            "Forget an object on this machine; repository, sources, cached blocks and what operations made stay.",
        ),
        "import": ("staging:import_command", "Stage what changed in the sources: new, changed and deleted files."),
        "add": ("staging:add_command", "Stage files: copy them into the repository, or point at objects of a source."),
        "rm": (
            "staging:rm_command",
            "Stage the removal of files, and delete them from a working copy; nothing is deleted in the sources.",
        ),
        "mv": (
            "staging:mv_command",
            "Rename a file or directory; no byte is copied. In a working copy it is renamed on the disk, too.",
        ),
        "status": (
            "status:status_command",
            "Show the branch, what is staged on it, and what was changed in a working copy. Exits with 1 if anything was.",
        ),
        "reset": (
            "staging:reset_command",
            "Forget what is staged on the branch, or move it; sources, versions and local files stay as they are.",
        ),
        "commit": ("staging:commit_command", "Record what is staged as a new version of the branch."),
        "log": (
            "history:log_command",
            "Show the commits that lead to a revision, newest first; with paths, those that changed them.",
        ),
        "diff": (
            "history:diff_command",
            "Show which files differ: A added, M modified, D deleted, L same content stored elsewhere, R renamed (with -M).",
        ),
        "branch": ("branching:branch_command", "List branches, create, move, rename, protect or delete one."),
        "switch": ("branching:switch_command", "Put the dataset on a branch: what import, add and commit work on."),
        "tag": ("branching:tag_command", "List tags, or give a version a name that never moves and cannot be deleted."),
        "reflog": (
            "branching:reflog_command",
            "Show how a branch moved, newest first, with the name that each earlier state has: BRANCH@{N}.",
        ),
        "merge": (
            "merging:merge_command",
            "Merge a revision into the current branch: fast-forward, or three-way by path.",
        ),
        "conflicts": (
            "merging:conflicts_command",
            "List the conflicts of the merge, revert or cherry-pick that is under way. Exits with 1 if some are left.",
        ),
        "resolve": (
            "merging:resolve_command",
            "Say how conflicts are settled; nothing moves before ds merge --continue.",
        ),
        "revert": (
            "merging:revert_command",
            "Undo on the current branch what a commit changed, by a new commit. Conflicts are as in ds merge.",
        ),
        "cherry-pick": (
            "merging:cherry_pick_command",
            "Repeat on the current branch what a commit changed, with its author and message. Conflicts are as in ds merge.",
        ),
        "checkout": (
            "checkout:checkout_command",
            "Let the files of a working copy be those of a version; only what differs is written or deleted.",
        ),
        "restore": (
            "checkout:restore_command",
            "Write files of a working copy as they were; what was changed in them is lost.",
        ),
        "show": (
            "inspecting:show_command",
            "Show a commit: who, why, with what, and what it changed against its first parent. With a path, show that.",
        ),
        "stat": (
            "inspecting:stat_command",
            "Show what a version says of a path: size, hash, where the bytes lie, metadata; of a directory, its totals.",
        ),
        "annotate": ("inspecting:annotate_command", "Show which commit last changed each file below a path."),
        "lineage": (
            "lineage:lineage_command",
            "Show what a commit was made from: its inputs, and theirs, as far as this machine knows the datasets.",
        ),
        "verify-commit": (
            "signing:verify_commit_command",
            "Check the signatures of commits: good, unknown key, bad or unsigned. Exits with 1 if one is bad.",
        ),
        "pin": (
            "lineage:pin_command",
            "Note which version a run used; garbage collection keeps it until ds unpin. For caches, see ds cache pin.",
        ),
        "unpin": ("lineage:unpin_command", "Forget which version a run used."),
        "pins": ("lineage:pins_command", "List the runs that versions are pinned for."),
        "ls": ("files:ls_command", "List a directory of a version."),
        "cat": ("files:cat_command", "Write a file of a version to stdout, read through the cache."),
        "cp": (
            "inspecting:cp_command",
            "Copy a file or directory of a version to this machine, read through the cache.",
        ),
        "load": ("loading:load_command", "Bring a version into the cache before training; run again to resume."),
        "pack": (
            "packing:pack_command",
            "Merge the small files of a branch into tar shards: a new commit of the same content in a new layout.",
        ),
        "index": (
            "indexing:index_command",
            "Write an index, SHARD.idx, beside each tar that has none, so that samples are found without reading it.",
        ),
        "plan": (
            "planning:plan_command",
            "Go through an epoch without reading it: what each rank and node needs, and how mixed the batches are.",
        ),
        "fsck": (
            "maintenance:fsck_command",
            "Check that everything that branches and tags need is there and undamaged. Exits with 1 if something is not.",
        ),
        "gc": (
            "maintenance:gc_command",
            "Delete what no branch, tag or recent reflog needs, a grace period after it was condemned.",
        ),
        "expire": (
            "maintenance:expire_command",
            "Shorten the history: older commits are cut off, and ds gc deletes what only they need.",
        ),
        "explain": (
            "explaining:explain_command",
            "Say where a file's bytes are, who owns them, why they are not in this node's cache, and what to do.",
        ),
        "mount": (
            "mounting:mount_command",
            "Show a version, or a directory of it, as a read-only file system, until SIGTERM, Ctrl-C or ds umount.",
        ),
        "umount": (
            "mounting:umount_command",
            "Take a mount away, and end its server. Exits with 1 if it is in use.",
        ),
        "mounts": (
            "mounting:mounts_command",
            "List the mounts of this machine, whether they answer, and how they read. Exits with 1 if one is stale.",
        ),
        "top": ("top:top_command", "Watch the caches of this machine and their workers; Ctrl-C ends it."),
        "worker": ("worker:worker_command", "Serve this node's cache to the other nodes, until SIGTERM or Ctrl-C."),
        "controller": (
            "controller:controller_command",
            "Let a Kubernetes cluster have what its Datasets, CacheRuntimes and DataLoads declare, until SIGTERM or Ctrl-C.",
        ),
        "csi": (
            "csi:csi_command",
            "Be the CSI driver of a Kubernetes node: pods name a Dataset as their volume, and see its files.",
        ),
    },
    "agent": {
        "load": (
            "agent:load_command",
            "Do what a DataLoad of the cluster asks, and tell its status: what the pod of its job runs.",
        ),
        "pack": (
            "agent:pack_command",
            "Do what a DataPack of the cluster asks, and tell its status: what the pod of its job runs.",
        ),
        "process": (
            "agent:process_command",
            "Do the first or the last part of a DataProcess of the cluster, and tell its status.",
        ),
        "migrate": (
            "agent:migrate_command",
            "Do what a DataMigrate of the cluster asks, and tell its status: what the pod of its job runs.",
        ),
    },
    "sparse": {
        "set": (
            "checkout:sparse_set_command",
            "Hold only the files that match one of some patterns, and delete the others from the disk.",
        ),
        "add": ("checkout:sparse_add_command", "Hold the files that match more patterns, too."),
        "list": ("checkout:sparse_list_command", "Print the patterns; none if the working copy holds everything."),
        "disable": ("checkout:sparse_disable_command", "Hold every file again."),
    },
    "hooks": {
        "list": (
            "hooking:hooks_list_command",
            "List the hooks in .ds/hooks.yaml of a version, and whether those that run code are trusted.",
        ),
        "run": (
            "hooking:hooks_run_command",
            "Ask the hooks of the current branch about what is staged. Exits with 5 if one refuses; nothing is committed.",
        ),
        "trust": (
            "hooking:hooks_trust_command",
            "Let the hooks of a version run code on this machine, as you, until they change. Look at them first.",
        ),
    },
    "cache": {
        "status": ("caching:cache_status_command", "Show how full the caches of this machine are, and who uses them."),
        "top": ("top:top_command", "Watch the caches of this machine and their workers; Ctrl-C ends it."),
        "evict": (
            "evicting:cache_evict_command",
            "Give room back: evict a version, a directory, all of a dataset, or so many bytes. What is pinned stays.",
        ),
        "pin": (
            "pinning:cache_pin_command",
            "Keep a version in this node's cache whatever else is read; without a target, list what is pinned.",
        ),
        "unpin": ("pinning:cache_unpin_command", "Let a pinned version be evicted again."),
        "verify": (
            "verifying:cache_verify_command",
            "Read what is cached from the disk and compare it with its checksums; what is damaged is forgotten.",
        ),
        "doctor": (
            "doctor:cache_doctor_command",
            "Check directories, disks, locks, the index and the workers of a cache, and say what to do.",
        ),
    },
    "writes": {
        "list": ("writing:list_command", "List what was written on this machine and is not committed."),
        "resume": (
            "writing:resume_command",
            "Upload and commit what a process left, with the files that it had closed.",
        ),
        "drop": (
            "writing:drop_command",
            "Throw away what a process wrote and did not commit. Its bytes on this machine are deleted.",
        ),
    },
    "dvc": {
        "import": (
            "dvc:import_command",
            "Repeat the history of a DVC project as commits; no byte of its files is read.",
        ),
    },
    "k8s": {
        "manifests": (
            "k8s:k8s_manifests_command",
            "Print the definitions, rights and controller that make a cluster know Datasets, as YAML for kubectl apply -f -.",
        ),
    },
    "export": {
        "dvc": (
            "dvc:export_command",
            "Write a version as a DVC project: its cache, its files, and a .dvc file for each thing at the top.",
        ),
    },
}
"""By group and name: where a command lies, as `module:function`, and the first line of its docstring."""
TAKE_PATHS = ("checkout", "diff", "log")
"""Commands that take paths behind `--`."""
