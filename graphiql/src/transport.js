import { getOperationAST, parse } from 'graphql';
import { createClient } from 'graphql-ws';

function isSubscription({ query, operationName }) {
  try {
    return getOperationAST(parse(query), operationName)?.operation === 'subscription';
  } catch {
    return false; // The server says best what is wrong with it.
  }
}

function readable(error) {
  if (error instanceof CloseEvent) {
    return { message: `The WebSocket was closed: ${error.code} ${error.reason}`.trim() };
  }
  return Array.isArray(error) ? error : { message: error?.message ?? 'The WebSocket failed' };
}

/** Queries and mutations go by POST, subscriptions by a WebSocket, both to the path given. */
export class Transport {
  #path;
  #token = '';
  #socket = null;

  constructor(path) {
    this.#path = path;
  }

  set token(token) {
    this.#token = token.trim().replace(/^bearer\s+/i, '');
    this.#closeSocket();
  }

  /** Do an operation as GraphiQL asks for it; `headers` come from its editor of headers. */
  async run(params, { headers } = {}) {
    try {
      const all = this.#headers(headers);
      return isSubscription(params) ? this.#subscribe(params, all) : await this.#post(params, all);
    } catch (error) {
      return { errors: [{ message: error.message }] };
    }
  }

  #headers(extra) {
    const headers = new Headers({ accept: 'application/json', 'content-type': 'application/json' });
    if (this.#token) {
      headers.set('authorization', `Bearer ${this.#token}`);
    }
    for (const [name, value] of Object.entries(extra ?? {})) {
      headers.set(name, value);
    }
    return headers;
  }

  async #post(params, headers) {
    const response = await fetch(this.#path, { method: 'POST', headers, body: JSON.stringify(params) });
    const text = await response.text();
    try {
      return JSON.parse(text);
    } catch {
      throw new Error(`The server answered ${response.status} without JSON: ${text.slice(0, 500)}`);
    }
  }

  #subscribe(params, headers) {
    const client = this.#socketFor(headers.get('authorization'));
    return {
      subscribe: ({ next, error, complete }) => {
        const sink = { next, complete, error: (reason) => error(readable(reason)) };
        return { unsubscribe: client.subscribe(params, sink) };
      },
    };
  }

  // A socket speaks for whom it was opened, so another token needs another one.
  #socketFor(authorization) {
    if (this.#socket?.authorization !== authorization) {
      this.#closeSocket();
      const url = new URL(this.#path, location.href);
      url.protocol = url.protocol.replace('http', 'ws');
      const client = createClient({
        url: url.href,
        connectionParams: authorization ? { Authorization: authorization } : undefined,
        retryAttempts: 0,
      });
      this.#socket = { authorization, client };
    }
    return this.#socket.client;
  }

  #closeSocket() {
    this.#socket?.client.dispose();
    this.#socket = null;
  }
}
