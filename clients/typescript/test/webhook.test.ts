import assert from "node:assert/strict";
import { test } from "node:test";
import { verifyWebhook, WebhookError } from "../src/index.js";

/** What the service itself has signed, from the test that starts this one. */
interface Signed {
  readonly secret: string;
  readonly body: string;
  readonly headers: Record<string, string>;
}

const signed = JSON.parse(process.env["SIGNED_WEBHOOK"] ?? "") as Signed;
const OTHER = `whsec_${Buffer.from("another key of 32 bytes, or so.").toString("base64")}`;

test("a webhook of the service is verified, also while the secret is changed", () => {
  assert.equal(verifyWebhook(signed.body, signed.headers, signed.secret).type, "export.completed");
  assert.equal(verifyWebhook(Buffer.from(signed.body), new Headers(signed.headers), [OTHER, signed.secret]).data.status, "completed");
});

test("whatever differs from what was signed is refused", () => {
  const at = Number(signed.headers["webhook-timestamp"]);
  const wrong: Record<string, () => unknown> = {
    secret: () => verifyWebhook(signed.body, signed.headers, OTHER),
    "no secret": () => verifyWebhook(signed.body, signed.headers, "whsec_"),
    body: () => verifyWebhook(signed.body.replace("completed", "failed"), signed.headers, signed.secret),
    id: () => verifyWebhook(signed.body, { ...signed.headers, "webhook-id": "msg_2" }, signed.secret),
    time: () => verifyWebhook(signed.body, { ...signed.headers, "webhook-timestamp": `${at + 1}` }, signed.secret),
    "no signature": () => verifyWebhook(signed.body, { ...signed.headers, "webhook-signature": undefined }, signed.secret),
    "another version": () =>
      verifyWebhook(signed.body, { ...signed.headers, "webhook-signature": (signed.headers["webhook-signature"] ?? "").replaceAll("v1,", "v2,") }, signed.secret),
    "an old one": () => verifyWebhook(signed.body, signed.headers, signed.secret, new Date((at + 301) * 1000)),
    "one of the future": () => verifyWebhook(signed.body, signed.headers, signed.secret, new Date((at - 301) * 1000)),
  };
  for (const [what, verify] of Object.entries(wrong)) assert.throws(verify, WebhookError, what);
});
