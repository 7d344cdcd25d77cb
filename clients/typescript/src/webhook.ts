import { createHmac, timingSafeEqual } from "node:crypto";
import { WebhookError } from "./errors.js";

/** Headers of a received request: those of Node, or those of `fetch`. */
export type WebhookHeaders = Headers | Record<string, string | string[] | undefined>;

/** The content of a webhook. `data` has the fields of `docs/delivery.md`. */
export interface Webhook {
  readonly type: "export.completed" | "export.failed";
  readonly timestamp: string;
  readonly data: Record<string, unknown> & { readonly job_id: string; readonly status: string };
}

const TOLERANCE_SECONDS = 300;

/**
 * Verify the signature of a webhook (Standard Webhooks) and return its content.
 *
 * `body` must be the bytes as they were received, before they are parsed. `secrets` are the receiver's own
 * secret, `whsec_…`, which `GET /exports/webhook-secret?url=…` returns, and while it is changed the one before.
 * Throws {@link WebhookError} if no signature fits, or if the webhook is older or newer than five minutes.
 */
export function verifyWebhook(
  body: Uint8Array | string,
  headers: WebhookHeaders,
  secrets: string | readonly string[],
  now: Date = new Date(),
): Webhook {
  const id = header(headers, "webhook-id");
  const timestamp = header(headers, "webhook-timestamp");
  const seconds = Number(timestamp);
  if (!/^\d+$/.test(timestamp) || Math.abs(now.getTime() / 1000 - seconds) > TOLERANCE_SECONDS) {
    throw new WebhookError("the webhook is too old, or its clock is wrong");
  }
  const content = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), Buffer.from(body)]);
  const given = header(headers, "webhook-signature").split(" ");
  for (const secret of typeof secrets === "string" ? [secrets] : secrets) {
    const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
    if (key.length === 0) throw new WebhookError("the secret is empty");
    const expected = createHmac("sha256", key).update(content).digest();
    for (const each of given) {
      const [version, signature] = each.split(",", 2);
      const bytes = Buffer.from(signature ?? "", "base64");
      if (version === "v1" && bytes.length === expected.length && timingSafeEqual(bytes, expected)) {
        return JSON.parse(Buffer.from(body).toString("utf8")) as Webhook;
      }
    }
  }
  throw new WebhookError("no signature of the webhook fits");
}

function header(headers: WebhookHeaders, name: string): string {
  const value = headers instanceof Headers ? headers.get(name) : headers[name];
  if (typeof value !== "string" || value === "") throw new WebhookError(`the header ${name} is missing`);
  return value;
}
