"""HDFS: NameNodes and HA nameservices, without a JVM, through hdfs-native."""

from sources.hdfs.store import HdfsStore

__all__ = ["HdfsStore"]
