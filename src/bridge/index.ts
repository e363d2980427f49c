/** The bridge between MCP hosts that cannot authenticate by attestation and servers that ask for it. */
export { type Authorization, type AuthorizationOptions, openAuthorization } from './auth/authorization.ts';
export { openInBrowser } from './auth/browser.ts';
export { authorizedFetch } from './auth/fetch.ts';
export type { Grant } from './auth/grants.ts';
export { withinServer } from './http.ts';
export { type LocalProxy, openProxy, type ProxyOptions } from './proxy.ts';
export { bridgeStdio, type StdioBridgeOptions } from './stdio.ts';
