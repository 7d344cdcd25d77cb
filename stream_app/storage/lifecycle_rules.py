"""Lifecycle rules of the bucket, by which the store removes old files and uploads that the service left."""

import math
from datetime import timedelta

import structlog
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.error import S3Error
from minio.lifecycleconfig import AbortIncompleteMultipartUpload, Expiration, LifecycleConfig, Rule

from stream_app.storage.errors import store_errors
from stream_app.storage.listing import ATTEMPTS_PREFIX

log = structlog.get_logger(__name__)

FILES, UPLOADS = "exporter-files", "exporter-uploads"


def rule_names(prefix: str) -> tuple[str, str]:
    """Return the names of the two rules for a folder. They differ from those of other deployments."""
    folder = prefix.removesuffix(ATTEMPTS_PREFIX).strip("/")
    return (f"{FILES}:{folder}", f"{UPLOADS}:{folder}") if folder else (FILES, UPLOADS)


def set_lifecycle_rules(
    client: Minio,
    bucket: str,
    *,
    files_after: timedelta,
    uploads_after: timedelta,
    prefix: str = ATTEMPTS_PREFIX,
) -> bool:
    """Set the rules for files and unfinished uploads below ``prefix``. Other rules are kept.

    Args:
        client: the client of the store.
        bucket: name of the bucket.
        files_after: age at which the store removes files, rounded up to days.
        uploads_after: age at which the store aborts unfinished uploads, rounded up to days.
        prefix: the folder of this deployment.

    Returns:
        Whether the store accepted the rules. If not, a warning is logged.

    Raises:
        Outage: the store cannot be reached.
    """
    attempts = Filter(prefix=f"{prefix}/")
    files, uploads = names = rule_names(prefix)
    rules = [
        Rule(ENABLED, attempts, files, expiration=Expiration(days=_days(files_after))),
        Rule(
            ENABLED,
            attempts,
            uploads,
            abort_incomplete_multipart_upload=AbortIncompleteMultipartUpload(_days(uploads_after)),
        ),
    ]
    with store_errors():
        try:
            set_before = client.get_bucket_lifecycle(bucket)
            others = [rule for rule in set_before.rules if rule.rule_id not in names] if set_before else []
            if set_before is None or set_before.rules != [*others, *rules]:
                _set(client, bucket, others, rules)
        except S3Error as error:
            log.warning("bucket.lifecycle_rules_refused", bucket=bucket, code=error.code, error=error.message)
            return False
    return True


def _set(client: Minio, bucket: str, others: list[Rule], rules: list[Rule]) -> None:
    """Set all rules. If the store does not support both kinds, set only the rule for files."""
    try:
        client.set_bucket_lifecycle(bucket, LifecycleConfig([*others, *rules]))
    except S3Error:
        client.set_bucket_lifecycle(bucket, LifecycleConfig([*others, rules[0]]))


def _days(age: timedelta) -> int:
    return math.ceil(age / timedelta(days=1))
