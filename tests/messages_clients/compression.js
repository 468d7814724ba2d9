// Messages through a gateway that compresses, with the client of ws: sizes, types and windows. Arguments: host, port.
'use strict';

const { WebSocket } = require('ws');

const [host, port] = process.argv.slice(2);
const numbers = Array.from({ length: 30000 }, (_, n) => n * 7919).join(', ');
const sizes = [0, 1, 1023, 1024, 5000, 70000, 131072];

const walk = (perMessageDeflate) => new Promise((resolve, reject) => {
  const lookup = (_, options, done) => (options.all
    ? done(null, [{ address: '127.0.0.1', family: 4 }])
    : done(null, '127.0.0.1', 4));
  const client = new WebSocket(`wss://${host}:${port}/`, { perMessageDeflate, lookup });
  const waiting = [];
  let messages = 0;
  client.on('error', reject);
  client.on('close', (code) => (code === 1000 ? resolve(messages) : reject(new Error(`closed with ${code}`))));
  client.on('open', () => {
    if (!client.extensions.includes('permessage-deflate')) {
      reject(new Error(`negotiated: ${client.extensions}`));
    }
    for (const size of sizes) {
      for (const binary of [false, true]) {
        waiting.push(`${binary} ${numbers.slice(0, size)}`);
        client.send(numbers.slice(0, size), { binary });
      }
    }
  });
  client.on('message', (data, binary) => {
    messages += 1;
    if (`${binary} ${data}` !== waiting.shift()) {
      reject(new Error(`another message of ${data.length} bytes came back`));
    }
    if (waiting.length === 0) {
      client.close(1000);
    }
  });
});

(async () => {
  let messages = 0;
  for (const bits of [undefined, 9, 10, 12, 15]) {
    messages += await walk({ threshold: 0, ...(bits && { serverMaxWindowBits: bits, clientMaxWindowBits: bits }) });
  }
  console.log(JSON.stringify({ messages }));
})();
