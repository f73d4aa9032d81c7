/** Where the token is: in memory, and in this tab's own storage if its user wants it there. */

const KEY = "commserver.token";

/** The token that this tab has kept, "" for none. */
export function kept() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return ""; // a browser that keeps nothing
  }
}

/** Keep it until the tab is closed. @param {string} token */
export function keep(token) {
  try {
    sessionStorage.setItem(KEY, token);
  } catch {
    // Then it has to be entered again after a reload.
  }
}

/** Keep nothing any more. */
export function forget() {
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // Nothing was kept.
  }
}
