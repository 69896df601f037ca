import { GraphiQL } from 'graphiql';
import { useEffect, useMemo, useState } from 'react';
import { createRoot } from 'react-dom/client';
import 'graphiql/style.css';
import './style.css';
import { keepToken, start } from './start.js';
import { storage } from './storage.js';
import { Transport } from './transport.js';

const EXAMPLE = `# Ctrl-Enter runs the operation,
# Ctrl-Space completes a name.
# Both need the token above.

{
  viewer {
    kind
    displayName
  }
}
`;

const given = start();
const transport = new Transport(location.pathname);
transport.token = given;

function Page() {
  const [token, setToken] = useState(given);
  const [settled, setSettled] = useState(given);

  // The schema is read anew once the token is complete, not at each key.
  useEffect(() => {
    const timer = setTimeout(() => setSettled(token), 400);
    return () => clearTimeout(timer);
  }, [token]);

  // GraphiQL reads the schema again when the function is another one.
  const fetcher = useMemo(() => (params, options) => transport.run(params, options), [settled]);

  const change = (event) => {
    const value = event.target.value.trim();
    setToken(value);
    keepToken(value);
    transport.token = value;
  };

  return (
    <>
      <header className="bar">
        <h1>Plafond</h1>
        <label htmlFor="token">Token</label>
        <input
          id="token"
          type="text"
          value={token}
          onChange={change}
          autoComplete="off"
          autoCapitalize="off"
          spellCheck={false}
        />
        <p role="status">{token ? '' : 'Paste a token to load the schema.'}</p>
      </header>
      <GraphiQL
        fetcher={fetcher}
        schema={settled ? undefined : null}
        defaultQuery={EXAMPLE}
        storage={storage}
        shouldPersistHeaders={false}
        inputValueDeprecation
        schemaDescription
      >
        <GraphiQL.Logo>
          <></>
        </GraphiQL.Logo>
      </GraphiQL>
    </>
  );
}

// GraphiQL names Ctrl-K for the search in the documentation, yet listens for the key of a Mac alone.
addEventListener('keydown', (event) => {
  const search = document.querySelector('.graphiql-doc-explorer-search input');
  if (event.ctrlKey && event.key === 'k' && search) {
    event.preventDefault();
    search.focus();
  }
});

createRoot(document.getElementById('root')).render(<Page />);
