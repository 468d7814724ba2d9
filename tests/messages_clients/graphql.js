// GraphQL over WebSocket: the server and the client of graphql-ws.
'use strict';

const http = require('http');
const { buildSchema } = require('graphql');
const { createClient } = require('graphql-ws');
const { useServer } = require('graphql-ws/use/ws');
const { WebSocket, WebSocketServer } = require('ws');
const { run, ORIGIN } = require('./wire');

const [server, seen] = [http.createServer(), []];
const schema = buildSchema('type Query { items: [String!]! } type Subscription { prices(item: ID!): Float! }');
async function* prices() {
  yield { prices: 1.5 };
  yield { prices: 2 };
}
useServer({
  schema,
  roots: { query: { items: () => ['tea'] }, subscription: { prices } },
  onSubscribe: (_, id, payload) => { seen.push(payload); },
}, new WebSocketServer({ server }));

const query = 'subscription Prices($item: ID!) { prices(item: $item) }';
const cases = {
  subscription: { query, operationName: 'Prices', variables: { item: 'tea' } },
  query: { query: 'query Items { items }' },
  introspection: { query: '{ __schema { types { name } } }' },
  variable: { query, operationName: 'Prices', variables: { item: "tea' OR '1'='1" } },
  more: { query, operationName: 'Prices', variables: { item: 'tea', admin: true } },
};

class Page extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { origin: ORIGIN });
  }
}

run(server, seen, cases, (port, payload) => new Promise((resolve) => {
  const client = createClient({
    url: `wss://api.example.com:${port}/graphql`,
    webSocketImpl: Page,
    connectionParams: { token: 'abc' },
    lazy: false,
    onNonLazyError: () => {},
    retryAttempts: 0,
    keepAlive: 50,
  });
  const heard = [];
  // The client's own ping is answered before the operation.
  let asked = false;
  client.on('pong', (received) => received && !asked && (asked = true) && client.subscribe(payload, {
    next: (result) => heard.push(result.data),
    error: (error) => resolve(error.code ?? String(error)),
    complete: () => { resolve(heard); client.dispose(); },
  }));
}));
