"""Keys for obstore: fixed ones, or those that botocore's chain finds and renews."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sources.errors import SourceAuthError, SourceError

if TYPE_CHECKING:
    from obstore.store import S3Credential

    from sources.s3.options import S3Options, StaticKeys

_log = logging.getLogger(__name__)
_RENEWED = timedelta(minutes=6)
"""obstore asks again 5 minutes before keys expire, so botocore is asked every minute: it knows when to renew them."""

_NEVER = datetime.max.replace(tzinfo=UTC)
NEXT_STEP = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the options key, secret and profile"
_NEXT_STEP_UNSIGNED = "anon: true reads only what is public: give keys, or make it public"


class FixedKeys:
    """An obstore credential provider of keys that stay.

    Given even where obstore could read the same from its configuration: keys from the options must not be joined with
    a session token from the environment.
    """

    def __init__(self, keys: StaticKeys) -> None:
        self._keys = keys

    def __call__(self) -> S3Credential:
        """Return the keys, for good."""
        keys = self._keys
        return {
            "access_key_id": keys.key, "secret_access_key": keys.secret, "token": keys.token, "expires_at": None
        }  # fmt: skip


class ChainKeys:
    """An obstore credential provider on botocore's chain: profiles, SSO, roles, web identity, processes, the machine's.

    Looks nothing up before the first request, and again whenever obstore finds what it has expired.

    Args:
        store_id: For error texts.
        profile: None is the default one.

    Attributes:
        failure: Why the last look-up failed, if it did: obstore passes only a text on.
    """

    def __init__(self, store_id: str, profile: str | None) -> None:
        self._store_id = store_id
        self._profile = profile
        self._lock = threading.Lock()
        self.failure: SourceError | None = None

    @cached_property
    def session(self) -> Any:
        """The botocore session that also makes this store's botocore clients."""
        import botocore.session  # a third of a second that only the chain needs to pay

        quiet_botocore()
        return botocore.session.Session(profile=self._profile)

    def __call__(self) -> S3Credential:
        """Return what the chain finds.

        Raises:
            SourceAuthError: If it finds nothing, or a look-up fails.
        """
        with self._lock:
            try:
                frozen, expiry = self._frozen()
            except SourceError as error:
                self.failure = error
                raise
            self.failure = None
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": min(expiry, datetime.now(UTC) + _RENEWED),
        }

    def _frozen(self) -> tuple[Any, datetime]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            credentials = self.session.get_credentials()
            if credentials is not None:
                frozen = credentials.get_frozen_credentials()
                expiry = getattr(credentials, "_expiry_time", None) or _NEVER  # of those that are renewed
                return frozen, expiry.astimezone(UTC)  # obstore knows no other time zones
        except (BotoCoreError, ClientError, OSError, ValueError, KeyError) as error:  # a provider's own are among them
            name = type(error).__name__  # its text may quote what a credential process printed
            _log.debug("credentials failed store=%s error=%s", self._store_id, name)
            failure = SourceAuthError(f"{self._store_id}: looking credentials up failed ({name}); {NEXT_STEP}")
        else:
            failure = SourceAuthError(f"{self._store_id}: no credentials found; {NEXT_STEP}, or the option anon: true")
        raise failure


def quiet_botocore() -> None:
    """Keep botocore's debug log off unless it was asked for by name: it shows tokens, and whole answers of STS."""
    log = logging.getLogger("botocore")
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)


def next_step(options: S3Options) -> str:
    """Say what to check when the store refuses a request."""
    return _NEXT_STEP_UNSIGNED if options.anon else NEXT_STEP


def provider(store_id: str, options: S3Options) -> FixedKeys | ChainKeys | None:
    """Choose where an obstore client gets its keys from; None: it does not sign."""
    if options.anon:
        return None
    return ChainKeys(store_id, options.profile) if options.keys is None else FixedKeys(options.keys)
