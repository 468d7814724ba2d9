// MQTT over WebSocket: the broker aedes and the client mqtt.
'use strict';

const http = require('http');
const aedes = require('aedes');
const mqtt = require('mqtt');
const { createWebSocketStream, WebSocketServer } = require('ws');
const { run } = require('./wire');

const [server, broker, seen] = [http.createServer(), aedes(), []];
new WebSocketServer({ server, handleProtocols: () => 'mqtt' })
  .on('connection', (socket) => broker.handle(createWebSocketStream(socket)));
broker.on('publish', (packet, client) => client && seen.push(packet.topic));

run(server, seen, { good: null }, (port) => new Promise((resolve) => {
  const client = mqtt.connect(`wss://chat.example.com:${port}/`, { reconnectPeriod: 0 });
  client.on('error', (error) => resolve(String(error)));
  client.on('connect', () => client.subscribe('lamp', () => client.publish('lamp', 'on', { qos: 1 })));
  client.on('message', (topic, payload) => client.end(() => resolve([topic, payload.toString()])));
}));
