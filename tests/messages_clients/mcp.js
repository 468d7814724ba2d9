// MCP, which is JSON-RPC 2.0: client and server of its own library, over a WebSocket.
'use strict';

const http = require('http');
const { Client } = require('@modelcontextprotocol/sdk/client/index.js');
const { WebSocketClientTransport } = require('@modelcontextprotocol/sdk/client/websocket.js');
const { Server } = require('@modelcontextprotocol/sdk/server/index.js');
const { CallToolRequestSchema, ListToolsRequestSchema } = require('@modelcontextprotocol/sdk/types.js');
const { WebSocket, WebSocketServer } = require('ws');
const { run } = require('./wire');

// The client takes that of the browser, which tells the code with which a connection ends.
let ended;
globalThis.WebSocket = class extends WebSocket {
  constructor(...rest) {
    super(...rest);
    ended = new Promise((resolve) => this.on('close', resolve));
  }
};

const [server, seen] = [http.createServer(), []];
new WebSocketServer({ server, handleProtocols: () => 'mcp' }).on('connection', (socket) => {
  const hub = new Server({ name: 'tools', version: '1.0' }, { capabilities: { tools: {} } });
  hub.setRequestHandler(ListToolsRequestSchema, () => ({
    tools: ['search', 'weather'].map((name) => ({ name, inputSchema: { type: 'object' } })),
  }));
  hub.setRequestHandler(CallToolRequestSchema, ({ params }) => {
    seen.push([params.name, params.arguments]);
    return { content: [{ type: 'text', text: `found ${params.arguments.query}` }] };
  });
  const transport = {
    start: async () => socket.on('message', (text) => transport.onmessage(JSON.parse(text))),
    send: async (message) => socket.send(JSON.stringify(message)),
    close: async () => socket.close(),
  };
  hub.connect(transport);
});

const cases = {
  good: ['search', { query: 'green tea', limit: 5 }],
  query: ['search', { query: "tea'; DROP TABLE teas; --" }],
  more: ['search', { query: 'green tea', path: '/etc/passwd' }],
  tool: ['shell', { query: 'id' }],
};

run(server, seen, cases, async (port, [name, args]) => {
  const client = new Client({ name: 'agent', version: '1.0' });
  await client.connect(new WebSocketClientTransport(new URL(`wss://tools.example.com:${port}/mcp`)));
  const tools = (await client.listTools()).tools.map((tool) => tool.name);
  const answer = client.callTool({ name, arguments: args }).then((result) => [tools, result.content[0].text]);
  const first = await Promise.race([answer.catch(() => ended), ended]);
  await client.close();
  return first;
});
