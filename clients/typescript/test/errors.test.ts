import assert from "node:assert/strict";
import { test } from "node:test";
import { ApiError } from "../src/errors.js";

test("refusals that can pass are made again, others are not", () => {
  for (const status of [0, 408, 425, 429, 500, 502, 503, 504]) assert.ok(new ApiError("later", status).retryable, `${status}`);
  for (const status of [400, 401, 403, 404, 409, 410, 422]) assert.ok(!new ApiError("no", status).retryable, `${status}`);
});
