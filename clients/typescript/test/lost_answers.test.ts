import assert from "node:assert/strict";
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import { test } from "node:test";
import { readRetryAfter } from "../src/answers.js";
import { pause } from "../src/http.js";
import { ApiError, ExportClient, type ExportRequest } from "../src/index.js";
import { served } from "../testing/server.js";

const url = process.env["EXPORTER_API_URL"] ?? "";
const token = process.env["EXPORTER_TOKEN"] ?? "";
const LEDGER: ExportRequest = { export_type: "ledger", format: "csv", filters: { id: { lte: 50 } } };
const DOUBT = /it is not known whether it has done/;

/** What the API has taken: the key of the call, and its answer. */
interface Taken {
  readonly key: string | undefined;
  readonly status: number;
  readonly job: string;
}

type Lose = (request: IncomingMessage, response: ServerResponse) => void;

/** The ways in which a proxy loses an answer of the API. */
const LOSSES: Record<string, Lose> = {
  "the connection ends": (request) => request.socket.destroy(),
  "the gateway gives up": (_, response) => response.writeHead(504, { "content-type": "text/html" }).end("<html>"),
  "the answer is cut": (request, response) => {
    response.writeHead(202, { "content-type": "application/json", "content-length": "100" });
    response.write('{"export_', () => request.socket.destroy());
  },
  "no answer comes": () => undefined,
};

/** A proxy before the API. The API takes each call; `lose` is what the client sees of its answer. */
function proxy(taken: Taken[], lose: Lose): RequestListener {
  return (request, response) => {
    const forward = async (): Promise<void> => {
      const parts: Uint8Array[] = [];
      for await (const part of request) parts.push(part as Uint8Array);
      const headers = new Headers();
      for (const name of ["authorization", "content-type", "idempotency-key", "prefer"]) {
        const value = request.headers[name];
        if (typeof value === "string") headers.set(name, value);
      }
      const body = Buffer.concat(parts);
      const path = request.url ?? "";
      const answer = await fetch(url + path, { method: request.method ?? "", headers, ...(body.length ? { body } : {}) });
      const { export_job_id: job = "" } = JSON.parse((await answer.text()) || "{}") as { export_job_id?: string };
      taken.push({ key: headers.get("idempotency-key") ?? undefined, status: answer.status, job });
      lose(request, response);
    };
    void forward();
  };
}

async function failure(call: Promise<unknown>): Promise<ApiError> {
  try {
    await call;
  } catch (error) {
    assert.ok(error instanceof ApiError, String(error));
    return error;
  }
  return assert.fail("the call has succeeded");
}

for (const [how, lose] of Object.entries(LOSSES))
  test(`a request that the API took is in doubt, and its key makes it again as the same job: ${how}`, { timeout: 60_000 }, async () => {
    const api = new ExportClient(url, { token });
    const first = await api.requestAndWait(LEDGER);
    const taken: Taken[] = [];
    await served(proxy(taken, lose), async (address) => {
      const client = new ExportClient(address, { token, timeoutMs: 1_500 });
      for (const ask of [
        (over: ExportClient, options: object) => over.request(LEDGER, options),
        (over: ExportClient, options: object) => over.rerun(first.export_job_id, options),
      ]) {
        taken.length = 0;
        const error = await failure(ask(client, {}));
        assert.ok(error.inDoubt && error.retryable);
        assert.match(error.message, DOUBT);
        assert.doesNotMatch(error.message, /cannot be reached/);
        while (taken.length < 3) await pause(20); // each try of the client arrives, also one that it no longer waits for
        assert.equal(taken.length, 3);
        assert.equal(new Set(taken.map(({ job }) => job)).size, 1);
        for (const { key, status } of taken) assert.deepEqual([key, status], [error.idempotencyKey, 202]);
        const again = await ask(api, { idempotencyKey: error.idempotencyKey });
        assert.equal((again as { export_job_id: string }).export_job_id, taken[0]?.job);
      }
    });
  });

test("a change without a key is in doubt, too, and a key of the caller's own stays", { timeout: 60_000 }, async () => {
  const taken: Taken[] = [];
  const lost = LOSSES["the connection ends"] as Lose;
  await served(proxy(taken, lost), async (address) => {
    const client = new ExportClient(address, { token });
    const mine = `mine-${Date.now()}`;
    const named = await failure(client.call("POST", "/exports/jobs", LEDGER, { idempotencyKey: mine }));
    assert.deepEqual([named.inDoubt, named.idempotencyKey, taken.length], [true, mine, 1]); // a call is made once
    const job = taken[0]?.job ?? "";
    const cancelled = await failure(client.cancel(job));
    assert.deepEqual([cancelled.inDoubt, cancelled.idempotencyKey], [true, null]);
    const read = await failure(client.job(job));
    assert.deepEqual([read.inDoubt, read.idempotencyKey], [false, null]);
    assert.match(read.message, /cannot be reached/);
  });
});

test("what a later try says does not end the doubt about an earlier one", async () => {
  const keys: unknown[] = [];
  const answers: RequestListener = (request, response) => {
    keys.push(request.headers["idempotency-key"]);
    if (keys.length === 1) request.socket.destroy();
    else response.writeHead(401, { "content-type": "application/problem+json" }).end('{"detail": "The token has expired", "code": "unauthorized"}');
  };
  await served(answers, async (address) => {
    const error = await failure(new ExportClient(address, { token }).request(LEDGER));
    assert.deepEqual([error.status, error.code, error.inDoubt, error.idempotencyKey], [401, "unauthorized", true, keys[0]]);
    assert.match(error.message, /The token has expired; .*earlier try was lost/);
    assert.equal(keys.length, 2);
  });
});

const PROBLEM = { "content-type": "application/problem+json" };

/** What has changed nothing: the status, the headers and the body of the answer. */
const REFUSALS: [number, Record<string, string>, string][] = [
  [503, { ...PROBLEM, "retry-after": "60" }, '{"detail": "Kafka is away", "code": "outage"}'],
  [403, PROBLEM, '{"detail": "no", "code": "role_missing"}'],
  [413, { "content-type": "text/html" }, "<html>"],
  [307, { location: "https://elsewhere.example.com" }, ""],
];

for (const [status, headers, body] of REFUSALS)
  test(`a call that was refused with ${status} is not in doubt, and has its key`, async () => {
    let calls = 0;
    const refuses: RequestListener = (_, response) => {
      calls += 1;
      response.writeHead(status, headers).end(body);
    };
    await served(refuses, async (address) => {
      const error = await failure(new ExportClient(address, { token }).request(LEDGER, { idempotencyKey: "k" }));
      assert.deepEqual([error.status, error.inDoubt, error.idempotencyKey], [status, false, "k"]);
      assert.equal(error.retryAfter, status === 503 ? 60 : null);
      assert.equal(calls, 1); // the API wants a longer pause than the client makes by itself
    });
  });

test("problems of proxies, with or without a code, and of the API are told apart", async () => {
  const texts: [string, boolean][] = [
    ['{"title": "Bad Gateway"}', true],
    ["null", true],
    ['{"det', true],
    ['{"detail": "The commit has no answer", "code": "in_doubt"}', true],
    ['{"detail": "The database is away", "code": "outage"}', false],
  ];
  for (const [text, inDoubt] of texts)
    await served((_, response) => response.writeHead(502, PROBLEM).end(text), async (address) => {
      const error = await failure(new ExportClient(address, { token }).password("1"));
      assert.equal(error.inDoubt, inDoubt, text);
    });
});

test("a call that was never sent is not in doubt", { timeout: 60_000 }, async () => {
  let closed = "";
  await served(() => undefined, async (address) => void (closed = address));
  const nameless = `http://${"a".repeat(64)}.test`; // no server of names is asked for so long a label
  for (const address of [closed, closed.replace("127.0.0.1", "localhost"), nameless, "nowhere"]) {
    const error = await failure(new ExportClient(address, { token }).request(LEDGER));
    assert.deepEqual([error.status, error.inDoubt], [0, false], address);
    assert.match(error.message, /cannot be reached/);
    assert.ok(error.idempotencyKey);
  }
  const tokenless = new ExportClient(url, { token: () => Promise.reject(new Error("no token")) });
  assert.equal((await failure(tokenless.request(LEDGER))).inDoubt, false);
  const silent = new ExportClient(url, { token, fetch: () => Promise.reject(new TypeError("failed")) });
  assert.equal((await failure(silent.request(LEDGER))).inDoubt, true); // nobody knows what this `fetch` has done
  const empty = new TypeError("failed", { cause: new AggregateError([]) });
  const wordless = new ExportClient(url, { token, fetch: () => Promise.reject(empty) });
  assert.equal((await failure(wordless.request(LEDGER))).inDoubt, true);
});

test("an accepted request whose job cannot be followed has its key", async () => {
  const answers: RequestListener = (request, response) => {
    if (request.method === "POST") response.writeHead(202, { "content-type": "application/json" }).end('{"export_job_id": "1", "status": "pending"}');
    else response.writeHead(403, PROBLEM).end('{"detail": "no", "code": "forbidden"}');
  };
  await served(answers, async (address) => {
    const error = await failure(new ExportClient(address, { token }).requestAndWait(LEDGER, { idempotencyKey: "mine" }));
    assert.deepEqual([error.status, error.inDoubt, error.idempotencyKey], [403, false, "mine"]);
  });
});

test("a server that is not this API is an ApiError with the key", async () => {
  await served((_, response) => response.end("<html>"), async (address) => {
    const client = new ExportClient(address, { token });
    for (const call of [client.request(LEDGER, { idempotencyKey: "k" }), client.requestAndWait(LEDGER, { idempotencyKey: "k" })]) {
      const error = await failure(call);
      assert.deepEqual([error.status, error.idempotencyKey], [200, "k"]);
      assert.match(error.message, /does not answer as the exporter's API does/);
    }
  });
});

test("the client waits as long as the API wants", async () => {
  const times: number[] = [];
  const answers: RequestListener = (_, response) => {
    times.push(Date.now());
    if (times.length === 1) response.writeHead(429, { ...PROBLEM, "retry-after": "2" }).end('{"detail": "too many", "code": "busy"}');
    else response.writeHead(202, { "content-type": "application/json" }).end('{"export_job_id": "1", "status": "pending"}');
  };
  await served(answers, async (address) => {
    await new ExportClient(address, { token }).request(LEDGER);
    assert.ok((times[1] ?? 0) - (times[0] ?? 0) >= 1_990, String(times));
  });
  assert.deepEqual(["7", "Fri, 27 Nov 2020 14:00:00 GMT", null, "", "soon", "-1", "²"].map(readRetryAfter), [7, 0, null, null, null, null, null]);
  assert.ok((readRetryAfter("Fri, 27 Nov 2099 14:00:00 GMT") ?? 0) > 1e9);
});
