// Requests an export, shows its events, and downloads its files: node export.mjs FOLDER [DATASET]
import { ExportClient, isFinished } from "streaming-exporter-client";

const client = new ExportClient(process.env.EXPORTER_PUBLIC_URL ?? "http://127.0.0.1:8000", {
  token: process.env.EXPORTER_TOKEN ?? "",
});

const { export_job_id } = await client.request({
  export_type: process.argv[3] ?? "ledger",
  format: "csv",
  ...(process.env.SHOP_WEBHOOK_URL ? { webhook: process.env.SHOP_WEBHOOK_URL } : {}),
});
for await (const job of client.events(export_job_id)) {
  console.error(`${job.status}: ${job.row_count ?? 0} rows`);
  if (isFinished(job) && job.status !== "completed") process.exit(1);
}
for (const path of await client.download(export_job_id, process.argv[2] ?? ".")) console.log(path);
