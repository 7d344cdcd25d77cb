import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { getEventListeners } from "node:events";
import { mkdtemp, readdir, readFile, writeFile } from "node:fs/promises";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { test } from "node:test";
import { saveFile } from "../src/download.js";
import { Http } from "../src/http.js";
import { ApiError, DownloadError, ExportClient, isFinished, JobEndedError, type ExportRequest } from "../src/index.js";
import { served } from "../testing/server.js";

const url = process.env["EXPORTER_API_URL"] ?? "";
const client = new ExportClient(url, { token: () => process.env["EXPORTER_TOKEN"] ?? "" });
const LEDGER: ExportRequest = { export_type: "ledger", format: "csv", scope: "all", filters: { id: { lte: 50 } } };

async function folder(): Promise<string> {
  return mkdtemp(join(tmpdir(), "exporter-client-"));
}

const unreachable = (error: unknown): boolean => error instanceof ApiError && error.status === 0 && error.retryable;

test("an export is requested, awaited, listed and downloaded, and what is there is not overwritten", async () => {
  const job = await client.requestAndWait(LEDGER);
  assert.equal(job.status, "completed");
  const [file, ...more] = await client.files(job.export_job_id);
  assert.ok(file);
  assert.equal(more.length, 0);
  const place = await folder();
  const [path] = await client.download(job.export_job_id, place);
  assert.ok(path);
  const content = await readFile(path);
  assert.equal(createHash("sha256").update(content).digest("hex"), file.sha256);
  assert.deepEqual(await client.download(job.export_job_id, place), [path]);
  await writeFile(path, "mine");
  const [second] = await client.download(job.export_job_id, place);
  assert.match(basename(second ?? ""), / \(2\)\.csv$/);
  assert.equal(await readFile(path, "utf8"), "mine");
  assert.equal((await readdir(place)).length, 2);
});

test("a download goes on where it was interrupted, and a damaged one is refused", async () => {
  const job = await client.requestAndWait(LEDGER);
  const [file] = await client.files(job.export_job_id);
  assert.ok(file);
  const whole = await readFile((await client.download(job.export_job_id, await folder()))[0] ?? "");
  const place = await folder();
  const part = join(place, `.${file.file_name}.${file.sha256.slice(0, 16)}.part`);
  await writeFile(part, whole.subarray(0, 100));
  const seen: number[] = [];
  const [path] = await client.download(job.export_job_id, place, { onProgress: (_, done) => seen.push(done) });
  assert.equal(seen[0], 100);
  assert.equal(seen.at(-1), file.file_size);
  assert.deepEqual(await readFile(path ?? ""), whole);
  const other = await folder();
  await writeFile(join(other, basename(part)), "x".repeat(100));
  await assert.rejects(client.download(job.export_job_id, other), DownloadError);
  assert.deepEqual(await readdir(other), []);
});

test("several files are all downloaded", async () => {
  const job = await client.requestAndWait({ ...LEDGER, split: { rows: 20 } });
  const paths = await client.download(job.export_job_id, await folder());
  assert.equal(paths.length, 3);
});

test("the events of a job end with its end", async () => {
  const { export_job_id } = await client.request({ export_type: "ledger", format: "json" });
  const statuses: string[] = [];
  for await (const job of client.events(export_job_id)) statuses.push(job.status);
  assert.equal(statuses.at(-1), "completed");
  assert.ok(isFinished(await client.wait(export_job_id)));
});

test("one key is one job, a job is run again as another one, and its file can be removed", async () => {
  const key = { idempotencyKey: `key-${Date.now()}` };
  const first = await client.request(LEDGER, key);
  assert.equal((await client.request(LEDGER, key)).export_job_id, first.export_job_id);
  assert.equal((await client.wait(first.export_job_id)).status, "completed");
  const again = await client.rerun(first.export_job_id);
  assert.notEqual(again.export_job_id, first.export_job_id);
  assert.equal((await client.wait(again.export_job_id)).status, "completed");
  await client.cancel(again.export_job_id);
  for (let job = await client.job(again.export_job_id); job.status !== "expired"; ) job = await client.job(job.export_job_id);
  await assert.rejects(client.download(again.export_job_id, await folder()), JobEndedError);
});

test("jobs, estimates, manifests, deliveries and destinations are read, and any other call can be made", async () => {
  const estimate = await client.estimate(LEDGER);
  assert.ok(estimate.fits && estimate.rows > 0);
  const job = await client.requestAndWait(LEDGER);
  assert.equal((await client.manifest(job.export_job_id)).rows, job.row_count);
  let found = false;
  for await (const listed of client.jobs({ status: "completed", exportType: "ledger" })) {
    assert.equal(listed.status, "completed");
    found ||= listed.export_job_id === job.export_job_id;
    if (found) break;
  }
  assert.ok(found);
  assert.deepEqual(await client.deliveries(job.export_job_id), []);
  assert.ok(Array.isArray(await client.destinations()));
  const me = await client.call<{ user_id: string }>("GET", "/exports/me");
  assert.equal(me?.user_id, "typescript-1");
});

test("the password of a zip archive is shown once", async () => {
  const job = await client.requestAndWait({ ...LEDGER, encrypt: { zip_password: true } });
  assert.equal(job.status, "completed");
  assert.ok((await client.password(job.export_job_id)).length >= 16);
  await assert.rejects(client.password(job.export_job_id), (error) => error instanceof ApiError && error.code === "password_shown");
});

test("what the API refuses has its code and its status", async () => {
  await assert.rejects(client.request({ export_type: "unknown", format: "csv" }), (error) => {
    assert.ok(error instanceof ApiError);
    assert.equal(error.status, 422);
    assert.equal(error.code, "unknown_dataset");
    return true;
  });
  const stranger = new ExportClient(url, { token: "no token" });
  await assert.rejects(stranger.datasets(), (error) => error instanceof ApiError && error.status === 401);
});

test("a body, a stream and a download that stop in the middle end in time", { timeout: 30_000 }, async () => {
  let calls = 0;
  const stalls: RequestListener = (_, response) => {
    calls += 1;
    response.writeHead(200, { "content-type": "application/json" });
    response.write("{");
  };
  await served(stalls, async (address) => {
    const impatient = new ExportClient(address, { token: "t", timeoutMs: 300 });
    await assert.rejects(impatient.call("GET", "/exports/me"), unreachable);
    await assert.rejects(impatient.requestAndWait(LEDGER, { signal: AbortSignal.timeout(1000) }), { name: "TimeoutError" });
    calls = 0;
    await assert.rejects(impatient.job("1"), unreachable);
    assert.equal(calls, 3); // what can be repeated is repeated
    const stream = await new Http(address, { token: "t" }).stream({ method: "GET", path: "/", repeatable: false }, 300);
    assert.ok(stream);
    const parts: string[] = [];
    await assert.rejects(async () => {
      for await (const part of stream) parts.push(new TextDecoder().decode(part));
    }, unreachable);
    assert.deepEqual(parts, ["{"]);
    const digest = "0".repeat(64);
    const file = { number: 1, file_name: "a.csv", content_type: "text/csv", row_count: 1, file_size: 9, sha256: digest, download_url: "" };
    const options = { link: async () => address, fetch: globalThis.fetch, silenceMs: 300 };
    await assert.rejects(saveFile(file, await folder(), options), DownloadError);
  });
});

test("nothing stays with the signal of a caller", async () => {
  const answers: RequestListener = (request, response) => {
    if (request.url?.endsWith("/events")) {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.end('id: 1\nevent: job\ndata: {"export_job_id": "1", "status": "completed"}\n\n');
    } else response.writeHead(request.method === "DELETE" ? 403 : 200).end("{}");
  };
  await served(answers, async (address) => {
    const { signal } = new AbortController();
    const away = new ExportClient(address, { token: "t" });
    for (let turn = 0; turn < 3; turn += 1) {
      await away.job("1", { signal });
      await assert.rejects(away.cancel("1", { signal }), ApiError);
      assert.equal((await away.wait("1", { signal })).status, "completed");
    }
    assert.equal(getEventListeners(signal, "abort").length, 0);
  });
});

test("a call is repeated under its key when the service fails, and ends with its signal", async () => {
  const keys: unknown[] = [];
  const server = createServer((request, response) => {
    keys.push(request.headers["idempotency-key"]);
    if (keys.length < 3) request.socket.destroy();
    else response.writeHead(202, { "content-type": "application/json" }).end('{"export_job_id": "1", "status": "pending"}');
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const away = new ExportClient(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, { token: "t" });
  assert.equal((await away.request(LEDGER)).export_job_id, "1");
  assert.equal(keys.length, 3);
  assert.equal(new Set(keys).size, 1);
  server.closeAllConnections();
  server.close();
  const stop = new AbortController();
  const reason = new Error("stopped");
  const waiting = away.wait("1", { signal: stop.signal });
  stop.abort(reason);
  await assert.rejects(waiting, reason);
});
