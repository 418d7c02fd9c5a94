"""A read-only file system over the cache: the kernel's FUSE protocol, spoken without a library."""
