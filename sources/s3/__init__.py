"""S3 and everything that speaks its protocol."""

from sources.s3.store import S3Store

__all__ = ["S3Store"]
