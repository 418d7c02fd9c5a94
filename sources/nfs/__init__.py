"""NFS in user space: no mount and no root."""

from sources.nfs.filesystem import NfsFileSystem
from sources.nfs.store import NfsStore

__all__ = ["NfsFileSystem", "NfsStore"]
