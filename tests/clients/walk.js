// The clients ws and undici on one walk: refused without a token, refused with one that lacks a claim, then through with a
// good one. Arguments: host, port. Says what each saw, one JSON document on a line.
'use strict';

const undici = require('undici');
const { WebSocket } = require('ws');
// Every name leads to the gateway.
require('../messages_clients/wire');

const [host, port] = process.argv.slice(2);
const { GOOD, LIMITED } = process.env;
const URL = `wss://${host}:${port}/walk`;
const [TEXT, BYTES] = ['grüße €', Buffer.from(Array.from({ length: 40000 }, (_, n) => n % 256))];

const bearer = (token) => (token ? { Authorization: `Bearer ${token}` } : {});

const ws = (token) => new Promise((resolve) => {
  const [socket, came] = [new WebSocket(URL, { headers: bearer(token) }), []];
  // Without a listener of this event, the error says the same in words.
  socket.on('unexpected-response', (_, answer) => resolve(answer.statusCode));
  socket.on('error', (error) => resolve(`${error}`));
  socket.on('open', () => socket.send(TEXT));
  socket.on('message', (data, binary) => {
    came.push(binary ? data.equals(BYTES) : data.toString());
    if (binary) socket.close(4000, 'enough');
    else socket.send(BYTES);
  });
  socket.on('close', (code, reason) => resolve([...came, code, reason.toString()]));
});

// The interface of browsers, which tells no page why a handshake failed.
const standard = (token) => new Promise((resolve) => {
  const [socket, came] = [new undici.WebSocket(URL, { headers: bearer(token) }), []];
  socket.binaryType = 'arraybuffer';
  socket.onerror = () => resolve('error');
  socket.onopen = () => socket.send(TEXT);
  socket.onmessage = ({ data }) => {
    const binary = typeof data !== 'string';
    came.push(binary ? Buffer.from(data).equals(BYTES) : data);
    if (binary) socket.close(4000, 'enough');
    else socket.send(BYTES);
  };
  socket.onclose = ({ code, reason }) => resolve([...came, code, reason]);
});

(async () => {
  for (const [client, walk] of Object.entries({ ws, undici: standard })) {
    for (const [step, token] of Object.entries({ without: '', limited: LIMITED, good: GOOD })) {
      console.log(JSON.stringify({ client, step, saw: await walk(token) }));
    }
  }
  process.exit(0);
})();
