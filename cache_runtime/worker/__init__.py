"""The worker: a node's store over HTTP, for other nodes. Nothing is imported here: clients need `presence` only."""
