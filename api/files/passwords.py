"""Shows the password of a job's zip archives to the user of the job, once."""

import structlog

from api.auth.authenticator import User
from api.errors import Problem
from api.services import ApiServices
from stream_app.exports.files.encryption import FINGERPRINT
from stream_app.jobs.models import ExportJob

log = structlog.get_logger(__name__)


async def show(services: ApiServices, user: User, job: ExportJob) -> str:
    """Return the password, and record that it was shown.

    The record comes first. If the answer is lost, the password cannot be shown again. Nothing is recorded
    if the service has another secret now than the worker that made the files. Jobs of version 0.2 and earlier
    do not say which one that was.

    Raises:
        Problem: the job has no password, it was shown before, it is for another user, or the secret was
            changed.
        InDoubt: the connection was lost. The password was possibly recorded as shown.
        Retryable: the state database is unavailable.
    """
    if user.id != job.user_id:
        raise Problem(403, "not_your_job", "Only the user of the job can see the password of its files")
    if not (job.encrypt or {}).get("zip_password"):
        raise Problem(
            409,
            "no_password",
            'The files of this job have no password. Set encrypt to {"zip_password": true} in a request',
        )
    passwords = services.passwords()
    made_with = (job.manifest or (job.outcome or {}).get("manifest") or {}).get(FINGERPRINT)
    is_other = passwords is not None and made_with not in (None, passwords.fingerprint)
    if passwords is None or (is_other and job.password_shown_at is None):
        raise Problem(
            409,
            "missing_secret",
            "The service does not have the secret any more that the password was made from. Run the export "
            "again to get files with a new password",
        )
    if not await services.job_files.mark_password_shown(job.id):
        raise Problem(
            410,
            "password_shown",
            "The password was shown before, and it is shown only once. Run the export again to get files "
            "with a new password",
        )
    log.info("password.shown", job_id=str(job.id), user_id=user.id)
    return passwords(str(job.id))
