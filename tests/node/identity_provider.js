// A real OpenID Connect provider on the loopback interface, for tests of the page's sign-in.
//
// Arguments: port, URL of the page, file with the signing key, which is made if it does not exist. Every name can sign in; what follows a plus sign are roles: ada+exports:all.
// PUT /test/seconds with {"code": 60, "token": 3600} sets the lifetimes of what is issued from then on.

import { generateKeyPairSync, randomUUID } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const [, , port, page, keyFile] = process.argv;
const seconds = { code: 60, token: 3600 };
if (!existsSync(keyFile)) {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  writeFileSync(keyFile, JSON.stringify({ ...privateKey.export({ format: "jwk" }), kid: randomUUID(), alg: "ES256", use: "sig" }));
}

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: "page",
      application_type: "native", // allows http on the loopback interface
      token_endpoint_auth_method: "none",
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      redirect_uris: [page],
      post_logout_redirect_uris: [page],
      id_token_signed_response_alg: "ES256",
    },
  ],
  jwks: { keys: [JSON.parse(readFileSync(keyFile, "utf8"))] },
  cookies: { keys: [randomUUID()] },
  clientBasedCORS: (_ctx, origin) => origin === new URL(page).origin,
  findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  extraTokenClaims: (_ctx, token) => ({ roles: token.accountId.split("+").slice(1) }),
  issueRefreshToken: (_ctx, client) => client.grantTypeAllowed("refresh_token"), // without a scope, as Keycloak does
  pkce: { required: () => true },
  ttl: { AuthorizationCode: () => seconds.code, Grant: 3600, IdToken: 3600, Interaction: 3600, RefreshToken: 3600, Session: 3600 },
  features: {
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_ctx, audience) => ({
        audience,
        scope: "",
        accessTokenTTL: seconds.token,
        accessTokenFormat: "jwt",
        jwt: { sign: { alg: "ES256" } },
      }),
      useGrantedResource: () => true,
    },
  },
});

const answer = provider.callback();
createServer((request, response) => {
  if (request.method !== "PUT" || request.url !== "/test/seconds") {
    answer(request, response);
    return;
  }
  let body = "";
  request.on("data", (part) => (body += part));
  request.on("end", () => {
    Object.assign(seconds, JSON.parse(body));
    response.end();
  });
}).listen(port, "127.0.0.1");
