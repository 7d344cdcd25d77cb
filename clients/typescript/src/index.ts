export { ExportClient, isFinished } from "./client.js";
export type {
  Accepted,
  AnyCallOptions,
  CallOptions,
  Catalogue,
  Delivery,
  Destination,
  Estimate,
  ExportRequest,
  FollowOptions,
  Job,
  JobFile,
  JobsOptions,
  Manifest,
  RequestOptions,
} from "./client.js";
export type { Progress } from "./download.js";
export { ApiError, DownloadError, JobEndedError, WebhookError } from "./errors.js";
export type { ApiErrorOptions, Problem } from "./errors.js";
export type { ClientOptions } from "./http.js";
export type { components, operations, paths } from "./schema.js";
export { verifyWebhook } from "./webhook.js";
export type { Webhook, WebhookHeaders } from "./webhook.js";
