import { ApiError, type Problem } from "./errors.js";

/** Methods of calls that change nothing. */
const READS: ReadonlySet<string> = new Set(["GET", "HEAD"]);

const NOT_KNOWN = "it is not known whether it has done what the call asks for";

/** System calls that fail before anything is sent. */
const FIRST_CALLS: ReadonlySet<unknown> = new Set(["connect", "getaddrinfo"]);

/** Codes of errors before anything is sent: of the connection, the URL, and the certificate of the server. */
const FIRST_CODES = /^(UND_ERR_CONNECT_TIMEOUT|ERR_INVALID_URL|UNABLE_TO_VERIFY_LEAF_SIGNATURE)$|(^|_)CERT(_|$)/;

/** Return the error of a response that is not a success. */
export async function refusal(base: string, response: Response, method: string): Promise<ApiError> {
  const type = response.headers.get("content-type") ?? "";
  const text = await response.text();
  const problem = type.startsWith("application/problem+json") ? asProblem(text) : null;
  const code = problem?.code ?? "";
  const { status } = response;
  // Errors of the API have a code. A proxy sends others, also after it has sent the call to the API.
  const isLost = code === "" && (status >= 500 || status === 408) && !READS.has(method);
  const isForeign = code === "" && (status < 400 || status === 404);
  const found = problem?.detail ?? problem?.title ?? `the server answered ${status}`;
  const said = isForeign ? `${notThere(base)}: ${found}` : found;
  return new ApiError(isLost ? `${said}; ${NOT_KNOWN}` : said, status, code, problem, {
    inDoubt: isLost || code === "in_doubt",
    isForeign,
    retryAfter: readRetryAfter(response.headers.get("retry-after")),
  });
}

/** Return the error of a call without an answer. `sent`: whether the call was given to `fetch`. */
export function unreachable(base: string, method: string, cause: unknown, sent: boolean): ApiError {
  const isLost = sent && !READS.has(method) && !isUnsent(cause);
  const text = isLost ? `the API at ${base} was called, and its answer was lost; ${NOT_KNOWN}` : `the API at ${base} cannot be reached`;
  return new ApiError(text, 0, "", null, { cause, inDoubt: isLost });
}

/** Return the error of a server that answers but is not this API. */
export function notTheApi(base: string, status: number, cause: unknown): ApiError {
  return new ApiError(notThere(base), status, "", null, { cause, isForeign: true });
}

const notThere = (base: string): string => `${base} does not answer as the exporter's API does`;

/** Note in an error what the caller needs to make the call again; `lost`: the answer of an earlier try was lost. */
export function noteCall(error: ApiError, headers: Record<string, string> | undefined, lost: boolean): void {
  error.idempotencyKey = headers?.["idempotency-key"] ?? null;
  if (lost && !error.inDoubt) {
    error.inDoubt = true;
    error.message += `; the answer of an earlier try was lost, and ${NOT_KNOWN}`;
  }
}

/** Return the seconds of a header `Retry-After`, which is a number or a time; null for others. */
export function readRetryAfter(value: string | null): number | null {
  const text = value?.trim() ?? "";
  if (/^\d+$/.test(text)) return Number(text.slice(0, 9));
  const at = /^[A-Z][a-z]+, /.test(text) ? Date.parse(text) : NaN;
  return Number.isNaN(at) ? null : Math.max(0, at - Date.now()) / 1000;
}

/**
 * Whether `fetch` has failed before it sent anything. Of an unknown failure this is not known, so the answer is no:
 * also of an error of another realm, which is no instance of `Error` here.
 */
function isUnsent(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : undefined;
  const causes: unknown[] = cause instanceof AggregateError ? cause.errors : [cause]; // one for each address of a host
  const isFirst = (one: unknown): boolean => {
    const { syscall, code } = (one ?? {}) as NodeJS.ErrnoException;
    return FIRST_CALLS.has(syscall) || FIRST_CODES.test(code ?? "");
  };
  return causes.length > 0 && causes.every(isFirst);
}

function asProblem(text: string): Problem | null {
  try {
    return JSON.parse(text) as Problem | null;
  } catch {
    return null; // of a proxy, or cut
  }
}
