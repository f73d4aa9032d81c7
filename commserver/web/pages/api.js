/** What pages ask the server over HTTP. The token goes into a header, never into an address. */

const PATIENCE = 15_000; // ms

/** Why there is no answer; `code` is "" where none came at all. */
export class ApiError extends Error {
  constructor(message, code = "") {
    super(message);
    this.name = "ApiError";
    this.code = code;
  }
}

/** @param {string} path @param {string} token */
async function get(path, token = "") {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const signal = AbortSignal.timeout(PATIENCE);
  let answer;
  try {
    answer = await fetch(path, { headers, signal, cache: "no-store", credentials: "omit" });
  } catch {
    throw new ApiError("The server does not answer.");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new ApiError(body.message ?? `error ${answer.status}`, String(answer.status));
  return body;
}

/** Where the WebSocket is: what the server says, else the page's own host. */
export async function websocketUrl() {
  const { websocket, port, tls } = await get("api/v1/config");
  const scheme = tls === "1" || location.protocol === "https:" ? "wss" : "ws";
  return websocket || `${scheme}://${location.hostname}:${port}`;
}

/** Who has this token: `{id, name}`; the name is "" if nobody knows it. */
export const me = (token) => get("api/v1/me", token);

/** The newest attempts of whoever has this token. */
export const attempts = async (token) => (await get("api/v1/me/attempts", token)).attempts.map(read);

const read = (attempt) => ({ ...attempt, place: Number(attempt.place) });

/** One of them, with its log. */
export const attempt = (token, id) => get(`api/v1/me/attempts/${encodeURIComponent(id)}`, token);
