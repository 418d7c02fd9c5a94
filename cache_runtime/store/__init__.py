"""The node-local store: one directory or several, shared by all processes of the node, without a daemon."""
