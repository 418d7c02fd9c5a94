"""A version as a file system: what a mount is told of it, and the processes that serve it."""
