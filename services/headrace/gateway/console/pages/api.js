// Calls of the console's own server. A change brings the session's token, which no other site can read.
export class CallError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

let token = null;
let onLoggedOut = () => {};
let onReached = () => {};

export function whenLoggedOut(tell) {
  onLoggedOut = tell;
}

// Told after each call whether the server was reached.
export function whenReached(tell) {
  onReached = tell;
}

export function keepToken(given) {
  token = given;
}

const LIMIT_MS = 90_000;

export async function call(method, path, body) {
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (method !== "GET" && token !== null) headers["x-csrf-token"] = token;
  let response;
  try {
    response = await fetch(`api/${path}`, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      signal: AbortSignal.timeout(LIMIT_MS),
    });
  } catch (error) {
    onReached(false);
    throw new CallError(0, error.name === "TimeoutError" ? "The console did not answer in time." : "The console can't be reached.");
  }
  onReached(true);
  let told = null;
  try {
    told = await response.json();
  } catch {
    told = null;
  }
  if (response.ok) return told;
  if (response.status === 401 && path !== "login") onLoggedOut();
  throw new CallError(response.status, told?.detail ?? `The console answered ${response.status}.`);
}

export const get = (path) => call("GET", path);
export const post = (path, body = {}) => call("POST", path, body);
