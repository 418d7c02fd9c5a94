"""The options of an HDFS source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sources.errors import SourceConfigError
from sources.options import check_known, timeout_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_KNOWN = ("config", "config_dir", "kerberos_cache", "kerberos_keytab", "kerberos_principal", "timeout_seconds")
_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class HdfsOptions:
    """How to reach a NameNode.

    Attributes:
        config: Hadoop properties; they win over those of the files.
        config_dir: Where core-site.xml and hdfs-site.xml lie; None is HADOOP_CONF_DIR, then HADOOP_HOME/etc/hadoop.
        kerberos_principal: Who to be; None is what `kinit` left.
        kerberos_keytab: Its file of keys.
        kerberos_cache: Its file of tickets.
        timeout_seconds: How long a NameNode or DataNode may say nothing.
    """

    config: dict[str, str] = field(default_factory=dict)
    config_dir: str | None = None
    kerberos_principal: str | None = None
    kerberos_keytab: str | None = None
    kerberos_cache: str | None = None
    timeout_seconds: float = _TIMEOUT_SECONDS

    @property
    def properties(self) -> dict[str, str]:
        """What the client is configured with, over what its files say.

        Its own defaults ask a NameNode that refuses connections for three minutes; we ask each of them a few times, and
        whoever called decides on more.
        """
        milliseconds = str(int(self.timeout_seconds * 1000))
        return {
            "dfs.client.socket-timeout": milliseconds,
            "dfs.client.failover.max.attempts": "4",
            "dfs.client.failover.sleep.base.millis": "50",
            "dfs.client.failover.sleep.max.millis": "500",
            **self.config,
        }


def parse_options(uri: str, options: Mapping[str, object]) -> HdfsOptions:
    """Check the options of a source.

    Raises:
        SourceConfigError: Naming the option, never its value.
    """
    check_known(uri, options, _KNOWN)
    config = options.get("config") or {}
    if not isinstance(config, dict):
        raise SourceConfigError(f"{uri}: option config is a mapping of Hadoop properties")
    if (options.get("kerberos_keytab") or options.get("kerberos_cache")) and not options.get("kerberos_principal"):
        raise SourceConfigError(f"{uri}: options kerberos_keytab and kerberos_cache need kerberos_principal")
    return HdfsOptions(
        config={str(name): _property(value) for name, value in config.items()},
        config_dir=_text(options.get("config_dir")),
        kerberos_principal=_text(options.get("kerberos_principal")),
        kerberos_keytab=_text(options.get("kerberos_keytab")),
        kerberos_cache=_text(options.get("kerberos_cache")),
        timeout_seconds=timeout_of(uri, options, _TIMEOUT_SECONDS),
    )


def _property(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
