// What the programs of this folder have in common: each is a server and its clients, on either side of a gateway. It says
// the server's port, reads the gateway's, and says what came of each case, one JSON document on a line.
'use strict';

const dns = require('dns');
const { isIP } = require('net');

const { LISTEN = '127.0.0.1', GATEWAY = '127.0.0.1' } = process.env;

// Every name leads to the gateway.
const lookup = dns.lookup;
dns.lookup = (name, ...rest) => lookup(isIP(name) ? name : GATEWAY, ...rest);

const say = (document) => console.log(JSON.stringify(document));

exports.ORIGIN = 'https://app.example.com';

// Listens, and runs each case with the gateway's port: `run(port, what)` gives what its client learned. `seen` holds what
// the server was asked in that case.
exports.run = async (server, seen, cases, run) => {
  await new Promise((resolve) => server.listen(0, LISTEN, resolve));
  say({ port: server.address().port });
  const port = await new Promise((resolve) => process.stdin.once('data', (line) => resolve(Number(line))));
  for (const [name, what] of Object.entries(cases)) {
    seen.length = 0;
    const client = await run(port, what);
    say({ case: name, client, seen });
  }
  process.exit(0);
};
