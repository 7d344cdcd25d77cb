import assert from "node:assert/strict";
import { test } from "node:test";
import { parseEventStream } from "../src/event_stream.js";

const TEXT = ": ping\r\n\r\nid: 1.0\nevent: job\ndata: {\"name\":\n\rdata: \"é\"}\n\n:ping\n\nid: 2\nevent: job\ndata:x\n\nevent: cut";

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.slice(at, at + size);
}

test("events are the same however the bytes are cut", async () => {
  const bytes = new TextEncoder().encode(TEXT.replace("\n\rdata", "\ndata"));
  for (let size = 1; size <= bytes.length; size += 1) {
    const found = [];
    for await (const event of parseEventStream(pieces(bytes, size))) found.push(event);
    assert.deepEqual(found, [
      { id: "1.0", event: "job", data: '{"name":\n"é"}' },
      { id: "2", event: "job", data: "x" },
    ]);
  }
});
