// Sign-in by OpenID Connect: the authorization code flow with PKCE (RFC 7636), without a secret.
//
// The provider sends the browser back to the page with a code, which the page exchanges for tokens. State, nonce and
// verifier wait in this tab's storage, so only the tab that began can finish.

import { t } from "./messages.js";
import { PAGE, now, payload } from "./session.js";

const FLOW = "exports.flow";
const FLOW_TIME = 30 * 60_000; // milliseconds in which users sign in
const TIMEOUT = 15_000; // milliseconds for an answer of the provider
const SKEW = 300; // seconds by which clocks can differ

/** A sign-in that failed; `away`: the provider did not answer, so trying again can help. */
export class SignInFailure extends Error {
  constructor(reason, values, away = false) {
    super(t(`page.provider.${reason}`, values));
    this.reason = reason;
    this.away = away;
  }
}

/** Go to the provider. */
export async function begin(oidc) {
  if (!globalThis.isSecureContext) throw new SignInFailure("insecure");
  const provider = await discover(oidc);
  const flow = { state: random(), nonce: random(), verifier: random(), began: Date.now(), place: location.hash };
  sessionStorage.setItem(FLOW, JSON.stringify(flow));
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(flow.verifier));
  const wanted = {
    response_type: "code",
    client_id: oidc.client_id,
    redirect_uri: PAGE,
    scope: oidc.scope,
    state: flow.state,
    nonce: flow.nonce,
    code_challenge: base64url(new Uint8Array(digest)),
    code_challenge_method: "S256",
    ...audience(oidc),
  };
  go(provider.authorization_endpoint, wanted);
}

/** Exchange the code for tokens. */
export async function finish(oidc, query) {
  const flow = JSON.parse(sessionStorage.getItem(FLOW));
  sessionStorage.removeItem(FLOW);
  if (!flow || flow.state !== query.get("state") || Date.now() - flow.began > FLOW_TIME) throw new SignInFailure("foreign");
  if (flow.place) history.replaceState(null, "", PAGE + flow.place); // what the user wanted to see, also after another attempt
  const provider = await discover(oidc);
  const issuer = query.get("iss") ?? (provider.authorization_response_iss_parameter_supported ? "" : oidc.issuer); // RFC 9207
  if (issuer !== oidc.issuer) throw new SignInFailure("foreign");
  const error = query.get("error");
  if (error === "access_denied") throw new SignInFailure("denied");
  if (error) throw new SignInFailure("refused", { code: error.slice(0, 100) });
  const grant = { grant_type: "authorization_code", code: query.get("code"), redirect_uri: PAGE, code_verifier: flow.verifier };
  const tokens = await exchange(oidc, provider, grant);
  const claims = payload(tokens.id);
  const known = claims && claims.iss === oidc.issuer && [claims.aud].flat().includes(oidc.client_id) && claims.exp > now() / 1000 - SKEW;
  if (!known || claims.nonce !== flow.nonce) throw new SignInFailure("foreign");
  if (!payload(tokens.access)) throw new SignInFailure("unreadable");
  return tokens;
}

/** New tokens in exchange for the refresh token. */
export async function renew(oidc, { refresh, id }) {
  const tokens = await exchange(oidc, await discover(oidc), { grant_type: "refresh_token", refresh_token: refresh });
  if (tokens.id && payload(tokens.id)?.sub !== payload(id)?.sub) throw new SignInFailure("foreign");
  return { refresh, id, ...tokens };
}

/** Revoke the refresh token, and go to the provider's sign-out if it has one. Return false if it has none. */
export async function leave(oidc, { refresh, id }) {
  const provider = await discover(oidc);
  if (refresh && provider.revocation_endpoint) {
    const body = new URLSearchParams({ token: refresh, token_type_hint: "refresh_token", client_id: oidc.client_id });
    await post(provider.revocation_endpoint, body).catch(() => {}); // the token ends by itself too
  }
  if (!provider.end_session_endpoint) return false;
  go(provider.end_session_endpoint, { client_id: oidc.client_id, post_logout_redirect_uri: PAGE, ...(id && { id_token_hint: id }) });
  return true;
}

const found = new Map();

/** The provider's discovery document. It must be that of the issuer, and its addresses must be safe. */
async function discover({ issuer, origins }) {
  if (found.has(issuer)) return found.get(issuer);
  const answer = await ask(`${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`, {});
  const provider = answer.ok ? await answer.json().catch(() => ({})) : {};
  if (provider.issuer !== issuer) throw new SignInFailure("unusable");
  for (const name of ["authorization_endpoint", "token_endpoint", "revocation_endpoint", "end_session_endpoint"]) {
    const needed = name === "authorization_endpoint" || name === "token_endpoint";
    if (!needed && provider[name] === undefined) continue;
    const url = URL.canParse(provider[name]) ? new URL(provider[name]) : null;
    const secure = url?.protocol === "https:" || (url?.protocol === "http:" && issuer.startsWith("http:"));
    const called = name === "token_endpoint" || name === "revocation_endpoint";
    if (secure && (!called || origins.includes(url.origin))) continue;
    if (needed) throw new SignInFailure(secure ? "other_origin" : "unusable", { origin: url?.origin });
    delete provider[name];
  }
  found.set(issuer, provider);
  return provider;
}

async function exchange(oidc, provider, grant) {
  const body = new URLSearchParams({ client_id: oidc.client_id, ...grant, ...audience(oidc) });
  const answer = await post(provider.token_endpoint, body);
  const content = await answer.json().catch(() => ({}));
  if (answer.ok && content.access_token) return { access: content.access_token, ...(content.refresh_token && { refresh: content.refresh_token }), ...(content.id_token && { id: content.id_token }) };
  if (answer.status >= 500 || answer.status === 429) throw new SignInFailure("away", {}, true);
  if (content.error === "invalid_grant") throw new SignInFailure("expired");
  throw new SignInFailure("refused", { code: String(content.error ?? answer.status).slice(0, 100) });
}

const post = (url, body) => ask(url, { method: "POST", body });

async function ask(url, options) {
  try {
    return await fetch(url, { ...options, credentials: "omit", redirect: "error", signal: AbortSignal.timeout(TIMEOUT) });
  } catch {
    throw new SignInFailure("away", {}, true);
  }
}

/** Some providers know an audience (Auth0), others a resource (RFC 8707). */
const audience = ({ audience: value }) => (value ? { audience: value, ...(/^[a-z][a-z0-9+.-]*:[^#]+$/i.test(value) && { resource: value }) } : {});

function go(address, parameters) {
  const url = new URL(address);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  location.assign(url);
}

const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

const base64url = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
