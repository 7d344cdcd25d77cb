import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { link, mkdir, open, rm, stat } from "node:fs/promises";
import { basename, extname, join } from "node:path";
import { DownloadError } from "./errors.js";
import { pause } from "./http.js";
import { Limit } from "./limit.js";
import type { components } from "./schema.js";

type JobFile = components["schemas"]["FileView"];

/** Is called with the bytes so far and the bytes in total. */
export type Progress = (file: JobFile, done: number) => void;

interface Options {
  /** Returns a fresh link to the file. */
  readonly link: () => Promise<string>;
  readonly fetch: typeof globalThis.fetch;
  readonly onProgress?: Progress | undefined;
  readonly signal?: AbortSignal;
  /** Milliseconds without a byte of the object store, after which a try has failed. */
  readonly silenceMs?: number;
}

const TRIES = 3;
const SILENCE_MS = 60_000;

/** Download a file into a folder, verify it, and return its path. */
export async function saveFile(file: JobFile, folder: string, options: Options): Promise<string> {
  await mkdir(folder, { recursive: true });
  const name = basename(file.file_name.replaceAll("\\", "/")) || `file-${file.number}`;
  const part = join(folder, `.${name}.${file.sha256.slice(0, 16)}.part`);
  for (let attempt = 1; ; attempt += 1) {
    const before = await sizeOf(part);
    try {
      await append(part, file, options);
      break;
    } catch (error) {
      options.signal?.throwIfAborted();
      const failed = error instanceof DownloadError || error instanceof TypeError; // fetch throws a TypeError
      if (!failed || (attempt >= TRIES && (await sizeOf(part)) <= before)) throw asDownloadError(error);
      await pause(500 * attempt, options.signal);
    }
  }
  const digest = await digestOf(part);
  if (digest !== file.sha256) {
    await rm(part);
    throw new DownloadError(`${name} was damaged on the way: sha256 ${digest} instead of ${file.sha256}; download it again`);
  }
  return publish(part, folder, name, file.sha256);
}

/** Append the bytes that the part lacks. */
async function append(part: string, file: JobFile, options: Options): Promise<void> {
  let done = await sizeOf(part);
  if (done > file.file_size) {
    await rm(part);
    done = 0;
  }
  options.onProgress?.(file, done);
  if (done === file.file_size && done > 0) return;
  const limit = new Limit(options.signal);
  const wait = (): void => limit.allow(options.silenceMs ?? SILENCE_MS);
  try {
    const url = await options.link();
    wait();
    const response = await options.fetch(url, {
      headers: done > 0 ? { range: `bytes=${done}-` } : {},
      signal: limit.signal,
    });
    const continues = response.status === 206 && (response.headers.get("content-range") ?? "").startsWith(`bytes ${done}-`);
    if (!continues && response.status !== 200) {
      await response.body?.cancel();
      throw new DownloadError(`the object store answered ${response.status}`);
    }
    if (!continues) done = 0; // the store sends the whole file
    const handle = await open(part, continues ? "a" : "w", 0o644);
    try {
      for await (const chunk of response.body ?? []) {
        limit.allow(Infinity); // the time that the disk and the caller need does not count
        await handle.write(chunk as Uint8Array);
        done += (chunk as Uint8Array).byteLength;
        options.onProgress?.(file, done);
        wait();
      }
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (!limit.signal.aborted || options.signal?.aborted) throw error;
    throw new DownloadError("the object store has stopped sending", { cause: error });
  } finally {
    limit.release();
  }
  if (done !== file.file_size) throw new DownloadError(`the download ended after ${done} of ${file.file_size} bytes`);
}

/** Give the part its name in one step; a name that is taken by other content gets a number. */
async function publish(part: string, folder: string, name: string, digest: string): Promise<string> {
  const extension = extname(name);
  const stem = name.slice(0, name.length - extension.length);
  for (let number = 1; ; number += 1) {
    const target = join(folder, number === 1 ? name : `${stem} (${number})${extension}`);
    try {
      await link(part, target);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      if ((await digestOf(target)) !== digest) continue;
    }
    await rm(part);
    return target;
  }
}

async function digestOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return 0;
    throw error;
  }
}

function asDownloadError(error: unknown): unknown {
  return error instanceof TypeError ? new DownloadError("the object store cannot be reached", { cause: error }) : error;
}
