// Socket.IO and SignalR, client and server, with the WebSocket transport alone: refused without a token, refused with one
// that lacks a claim, then through with a good one. Says the server's port, reads the gateway's, and says what each saw.
'use strict';

const http = require('http');
const { decode, encode } = require('@msgpack/msgpack');
const signalr = require('@microsoft/signalr');
const { MessagePackHubProtocol } = require('@microsoft/signalr-protocol-msgpack');
const { Server } = require('socket.io');
const { io } = require('socket.io-client');
const { WebSocketServer } = require('ws');
const { run } = require('../messages_clients/wire');

const { GOOD, LIMITED } = process.env;
const HOST = 'chat.example.com';
const [TEXT, BYTES] = ['grüße €', Buffer.from(Array.from({ length: 40000 }, (_, n) => n % 256))];
const [server, seen] = [http.createServer(), []];

new Server(server, { transports: ['websocket'] }).on('connection', (socket) => {
  socket.on('echo', (what, done) => done(what));
  socket.on('disconnect', (reason) => seen.push(reason));
});

// As much of the hub protocols as an echo needs: JSON in texts, and MessagePack in binary messages with a length before.
const END = '\x1e';
const hub = new WebSocketServer({ noServer: true });
server.on('upgrade', (request, socket, head) => {
  if (request.url.startsWith('/hub')) hub.handleUpgrade(request, socket, head, (one) => hub.emit('connection', one));
});
const prefixed = (record) => {
  const bytes = Buffer.from(encode(record));
  const length = [];
  for (let rest = bytes.length; length.length === 0 || rest > 0; rest >>= 7) length.push((rest & 127) | (rest > 127 ? 128 : 0));
  return Buffer.concat([Buffer.from(length), bytes]);
};
const behindLength = (bytes) => bytes.subarray(bytes.findIndex((byte) => byte < 128) + 1);
hub.on('connection', (socket) => {
  socket.on('close', (code) => seen.push(code));
  socket.on('message', (message, binary) => {
    if (binary) {
      const [type, , id, , args] = decode(behindLength(message));
      if (type === 1) socket.send(prefixed([3, {}, id, 3, args[0]]));
      return;
    }
    const record = JSON.parse(message.toString().slice(0, -1));
    if (record.protocol) socket.send(`{}${END}`);
    if (record.type === 1) {
      socket.send(JSON.stringify({ type: 3, invocationId: record.invocationId, result: record.arguments[0] }) + END);
    }
  });
});

const socketIo = (port, token) => new Promise((resolve) => {
  const socket = io(`https://${HOST}:${port}`, {
    transports: ['websocket'],
    extraHeaders: token ? { authorization: `Bearer ${token}` } : {},
    forceNew: true,
    reconnection: false,
  });
  socket.on('connect_error', (error) => resolve(`${error.description?.message ?? error}`));
  socket.on('connect', () => socket.emit('echo', TEXT, (text) => socket.emit('echo', BYTES, (bytes) => {
    socket.on('disconnect', (reason) => resolve([text, BYTES.equals(Buffer.from(bytes)), reason]));
    socket.disconnect();
  })));
});

const hubOf = (port, token, protocol) => new signalr.HubConnectionBuilder()
  .withUrl(`https://${HOST}:${port}/hub`, {
    skipNegotiation: true,
    transport: signalr.HttpTransportType.WebSockets,
    ...(token && { accessTokenFactory: () => token }),
  })
  .withHubProtocol(protocol)
  .configureLogging(signalr.LogLevel.None)
  .build();

const signalR = async (port, token) => {
  try {
    const came = [];
    for (const [protocol, what] of [[new signalr.JsonHubProtocol(), TEXT], [new MessagePackHubProtocol(), BYTES]]) {
      const connection = hubOf(port, token, protocol);
      await connection.start();
      const back = await connection.invoke('Echo', what);
      came.push(typeof back === 'string' ? back : BYTES.equals(Buffer.from(back)));
      await connection.stop();
      came.push(connection.state);
    }
    return came;
  } catch (error) {
    return `${error}`;
  }
};

const cases = {};
for (const [client, walk] of Object.entries({ 'socket.io': socketIo, signalr: signalR })) {
  for (const [step, token] of Object.entries({ without: '', limited: LIMITED, good: GOOD })) {
    cases[`${client} ${step}`] = (port) => walk(port, token);
  }
}

run(server, seen, cases, async (port, walk) => {
  const saw = await walk(port);
  // The server hears of the end a moment later.
  for (let turns = 0; Array.isArray(saw) && seen.length === 0 && turns < 500; turns += 1) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return saw;
});
