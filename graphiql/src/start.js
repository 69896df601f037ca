const KEY = 'plafond:token';

/** Take a token and a query from the fragment of the address; the answer is the token to begin with. */
export function start() {
  const given = fragment();
  if (given) {
    history.replaceState(null, '', location.pathname + location.search);
  }
  if (given?.has('token')) {
    keepToken(given.get('token').trim());
  }
  if (given?.has('query')) {
    // From here GraphiQL restores its editor: it opens the query in a tab of its own, after those it knows.
    localStorage.setItem('graphiql:query', given.get('query'));
    localStorage.removeItem('graphiql:variables');
  }
  // A link followed while the page is open changes the fragment only.
  addEventListener('hashchange', () => fragment() && location.reload());
  return sessionStorage.getItem(KEY) ?? '';
}

/** Keep the token for as long as the browser's tab lives. */
export function keepToken(token) {
  if (token) {
    sessionStorage.setItem(KEY, token);
  } else {
    sessionStorage.removeItem(KEY);
  }
}

function fragment() {
  const params = new URLSearchParams(location.hash.slice(1));
  return params.has('token') || params.has('query') ? params : null;
}
