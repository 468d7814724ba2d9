// SignalR: the client of Microsoft, and a server that speaks as much of the JSON hub protocol as it needs.
'use strict';

const http = require('http');
const signalr = require('@microsoft/signalr');
const { WebSocketServer } = require('ws');
const { run, ORIGIN } = require('./wire');

const END = '\x1e';
const [server, seen] = [http.createServer(), []];
new WebSocketServer({ server }).on('connection', (socket) => {
  const send = (...records) => socket.send(records.map((record) => JSON.stringify(record) + END).join(''));
  socket.on('message', (message) => {
    for (const record of message.toString().split(END).slice(0, -1).map((text) => JSON.parse(text))) {
      if (record.protocol) send({});
      if (record.type === 6) send({ type: 6 });
      if (record.type === 1) {
        seen.push([record.target, ...record.arguments]);
        send({ type: 1, target: 'Answer', arguments: ['Have you tried it?'] },
          { type: 3, invocationId: record.invocationId, result: seen.length });
      }
    }
  });
});

const cases = {
  good: ['Ask', 7, 'How do I log in?'],
  text: ['Ask', 7, '<script>alert(1)</script>'],
  type: ['Ask', '7', 'How do I log in?'],
  more: ['Ask', 7, 'How do I log in?', true],
  method: ['DeleteEverything', 7],
};

run(server, seen, cases, async (port, [target, ...rest]) => {
  const connection = new signalr.HubConnectionBuilder()
    .withUrl(`https://support.example.com:${port}/hubs/support`, {
      skipNegotiation: true,
      transport: signalr.HttpTransportType.WebSockets,
      headers: { Origin: ORIGIN },
    })
    .configureLogging(signalr.LogLevel.None)
    .build();
  connection.keepAliveIntervalInMilliseconds = 50;
  const heard = [];
  const answer = new Promise((resolve) => connection.on('Answer', (text) => resolve(heard.push(text))));
  await connection.start();
  // The client's own pings pass before the invocation.
  await new Promise((resolve) => setTimeout(resolve, 200));
  try {
    const result = await connection.invoke(target, ...rest);
    await answer;
    await connection.stop();
    return [heard, result];
  } catch (error) {
    return String(error);
  }
});
