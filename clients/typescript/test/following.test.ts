import assert from "node:assert/strict";
import type { RequestListener, ServerResponse } from "node:http";
import { test } from "node:test";
import { Following } from "../src/following.js";
import { ApiError, ExportClient } from "../src/index.js";
import { served } from "../testing/server.js";

type Answer = (response: ServerResponse) => void;

const PROXY: Answer = (response) => response.writeHead(404, { "content-type": "text/html" }).end("default backend - 404");
const UNKNOWN: Answer = (response) =>
  response.writeHead(404, { "content-type": "application/problem+json" }).end('{"title": "Not Found", "code": "not_found"}');

const event = (id: number, status: string): Answer => (response) =>
  response
    .writeHead(200, { "content-type": "text/event-stream" })
    .end(`id: ${id}\nevent: job\ndata: {"export_job_id": "1", "status": "${status}"}\n\n`);

/** A server that gives these answers in turn, and the last one again. */
function turns(...answers: readonly Answer[]): RequestListener {
  let next = 0;
  return (_, response) => answers[Math.min(next++, answers.length - 1)]?.(response);
}

test("a job is followed through the answers of a proxy", async () => {
  await served(turns(event(1, "processing"), PROXY, PROXY, event(2, "completed")), async (address) => {
    const client = new ExportClient(address, { token: "t" });
    assert.equal((await client.wait("1")).status, "completed");
  });
});

test("an answer that there is no such job ends the waiting, and so does a proxy before the job was seen", async () => {
  for (const [answers, isForeign, code] of [
    [[event(1, "processing"), UNKNOWN], false, "not_found"],
    [[PROXY], true, ""],
  ] as const) {
    await served(turns(...answers), async (address) => {
      const client = new ExportClient(address, { token: "t" });
      await assert.rejects(client.wait("1"), (error) => {
        assert.ok(error instanceof ApiError);
        assert.deepEqual([error.status, error.isForeign, error.code], [404, isForeign, code]);
        return true;
      });
    });
  }
});

test("a proxy answers for a limited time after the job was seen", () => {
  let now = 0;
  const foreign = new ApiError("another server", 404, "", null, { isForeign: true });
  const job = new Following(false, () => now);
  assert.ok(!job.canPass(foreign));
  job.noteJob();
  assert.ok(job.canPass(foreign));
  now = 14_999;
  assert.ok(job.canPass(foreign));
  now = 15_000;
  assert.ok(!job.canPass(foreign));
  assert.ok(job.canPass(new ApiError("away", 503)));
  assert.ok(!job.canPass(new ApiError("no", 404, "not_found")));
  job.noteJob();
  assert.ok(job.canPass(foreign));
  assert.ok(new Following(true, () => now).canPass(foreign));
});
