"""The settings of mails, chat messages and webhooks."""

import base64
import binascii

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from stream_app.setting_types import Domains, Host, HostPatterns, MailAddress, Networks, Port, Seconds
from streaming_exporter.setting_types import Count, Text


class DeliverySettings(BaseModel):
    """Settings of mails, webhooks and chat messages; :class:`~stream_app.settings.Settings` inherits them.

    Raises:
        pydantic.ValidationError: a value is not allowed.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    smtp_host: Host | None = Field(None, description="Mail server. If it is not set, no mails are sent")
    smtp_port: Port = Field(25, description="Port of the mail server. Port 465 uses TLS from the start")
    smtp_username: Text | None = Field(None, description="User name for the mail server")
    smtp_password: SecretStr | None = Field(None, description="Password for the mail server")
    smtp_starttls: bool = Field(
        False, description="Whether to encrypt the connection to the mail server with STARTTLS"
    )
    mail_from: MailAddress = Field("exports@localhost", description="Sender of the mails")
    link_secret: SecretStr | None = Field(
        None, description="Secret that signs the links in mails. Default: JWT_SECRET"
    )
    mail_allowed_domains: Domains | None = Field(
        None,
        description="Domains that mails are sent to, separated by commas. `*` allows all. Default: all if "
        "PUBLIC_URL is on loopback, otherwise none",
    )
    user_mail_limit: Count = Field(
        500, description="Limit of mails about the exports of one user in 24 hours"
    )
    mail_empty: bool = Field(True, description="Whether to send a mail about an export without rows")
    mail_attach_max_bytes: int = Field(
        0,
        ge=0,
        le=2_147_483_647,
        description="Files up to this size are attached to their mails. 0: files are never attached",
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="Key that signs webhooks: `whsec_` and 24 to 64 bytes in base64. If it is not set, no "
        "webhooks are sent",
    )
    webhook_previous_secret: SecretStr | None = Field(
        None,
        description="The WEBHOOK_SECRET before the current one. While it is set, webhooks carry a signature "
        "with it too",
    )
    webhook_shared_signature: bool = Field(
        True,
        description="Whether webhooks also carry a signature with WEBHOOK_SECRET itself, which all receivers "
        "share",
    )
    webhook_allowed_hosts: HostPatterns | None = Field(
        None,
        description="Hosts that webhooks can call, separated by commas. `*.example.com` stands for all hosts "
        "below example.com. Default: all public hosts",
    )
    webhook_denied_networks: Networks | None = Field(
        None,
        description="Networks that webhooks never call, separated by commas. Networks that are not public are"
        " always denied",
    )
    webhook_allow_private: bool = Field(
        False, description="Whether webhooks can use http and call private, link-local and loopback addresses"
    )
    slack_allowed_hosts: HostPatterns = Field(
        "hooks.slack.com,hooks.slack-gov.com",
        description="Hosts of the incoming webhooks that `slack:` recipients can name, separated by commas, "
        "also of chats with the same format, such as Mattermost. `*.example.com` stands for all hosts below "
        "example.com. `none`: no messages are sent to Slack",
    )
    teams_allowed_hosts: HostPatterns = Field(
        "*.webhook.office.com,*.logic.azure.com,*.powerplatform.com",
        description="Hosts of the workflows and incoming webhooks that `teams:` recipients can name, "
        "separated by commas. `*.example.com` stands for all hosts below example.com. `none`: no messages "
        "are sent to Teams",
    )
    delivery_timeout_seconds: Seconds = Field(
        30, description="Time-out of one mail, chat message or webhook call"
    )

    @field_validator("webhook_secret", "webhook_previous_secret")
    @classmethod
    def _is_webhook_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not 24 <= len(_webhook_key(value)) <= 64:
            raise ValueError("it is not a webhook secret; allowed: whsec_ and 24 to 64 bytes in base64")
        return value

    @property
    def webhook_key(self) -> bytes | None:
        """Return the key that signs webhooks, or ``None`` if webhooks are not set up."""
        return None if self.webhook_secret is None else _webhook_key(self.webhook_secret)

    @property
    def webhook_keys(self) -> list[bytes]:
        """Return the current key and, while the operators change it, the one before."""
        secrets = (self.webhook_secret, self.webhook_previous_secret)
        return [_webhook_key(secret) for secret in secrets if secret is not None]


def _webhook_key(secret: SecretStr) -> bytes:
    """Return the bytes of the key, or no bytes if it does not have the form of Standard Webhooks."""
    prefix, _, key = secret.get_secret_value().partition("_")
    try:
        return base64.b64decode(key, validate=True) if prefix == "whsec" else b""
    except binascii.Error:
        return b""
