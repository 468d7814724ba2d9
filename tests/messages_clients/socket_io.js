// Socket.IO: a server that hears of moves, and clients that make one.
'use strict';

const http = require('http');
const { Server } = require('socket.io');
const { io } = require('socket.io-client');
const { run, ORIGIN } = require('./wire');

const [server, seen] = [http.createServer(), []];
new Server(server, { transports: ['websocket'], pingInterval: 100 }).on('connection', (socket) => {
  socket.onAny((name, move, done) => {
    seen.push([name, move]);
    socket.emit('moved', move);
    done({ ok: true });
  });
});

const cases = {
  good: ['move', { piece: 'king', to: 'e4' }],
  place: ['move', { piece: 'king', to: "e4'; DROP TABLE games; --" }],
  member: ['move', { piece: 'king', to: 'e4', $where: 'sleep(9)' }],
  event: ['shutdown', { piece: 'king', to: 'e4' }],
};

run(server, seen, cases, (port, event) => new Promise((resolve) => {
  const socket = io(`https://board.example.com:${port}`, {
    transports: ['websocket'],
    auth: { token: 'abc' },
    extraHeaders: { origin: ORIGIN },
    forceNew: true,
    reconnection: false,
  });
  const heard = [];
  socket.on('connect_error', (error) => resolve(`no connection: ${error}`));
  socket.on('disconnect', (reason, details) => resolve(details?.context.code));
  socket.on('moved', (move) => heard.push(move));
  socket.on('connect', () => {
    // The server's heartbeat passes before the event.
    socket.io.once('ping', () => socket.emit(...event, (answer) => {
      resolve([heard, answer]);
      socket.disconnect();
    }));
  });
}));
