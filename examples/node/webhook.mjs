// Receives webhooks at /hook and verifies who has sent them: node webhook.mjs PORT
import { createServer } from "node:http";
import { verifyWebhook, WebhookError } from "streaming-exporter-client";

// From `GET /exports/webhook-secret?url=…`; several, separated by commas, while it is changed.
const secrets = (process.env.SHOP_WEBHOOK_SECRETS ?? "").split(",");
const MAX_BYTES = 1024 * 1024;
const seen = new Set(); // in production: a table; the same webhook can come twice

const server = createServer(async (request, response) => {
  if (request.method !== "POST" || request.url !== "/hook") return void response.writeHead(404).end();
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_BYTES) return void response.writeHead(413, { connection: "close" }).end();
    chunks.push(chunk);
  }
  try {
    const webhook = verifyWebhook(Buffer.concat(chunks), request.headers, secrets);
    const id = request.headers["webhook-id"];
    if (!seen.has(id)) console.log(`${webhook.type} ${webhook.data.job_id}`);
    seen.add(id);
    response.writeHead(204).end();
  } catch (error) {
    if (!(error instanceof WebhookError)) throw error;
    console.log(`refused: ${error.message}`);
    response.writeHead(401).end();
  }
});
server.listen(Number(process.argv[2] ?? 8084), "127.0.0.1", () => console.log("ready"));
