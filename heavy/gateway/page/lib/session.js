// The bearer token of a person who signed in: in this tab's session storage, never in a cookie. A cookie would be sent
// by itself, to every port of this host, and on other sites' behalf; this is sent only where our code sends it.

const KEY = "heavy.token";

export function token() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function signIn(value) {
  sessionStorage.setItem(KEY, value);
}

export function signOut() {
  sessionStorage.removeItem(KEY);
}

/** The headers by which this tab's requests are known. */
export function credentials() {
  return token() ? { Authorization: `Bearer ${token()}` } : {};
}
