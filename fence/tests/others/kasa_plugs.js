// Starts plugs of tplink-smarthome-simulator on ports that the kernel chooses. The argument is a JSON list of what
// each is made of. Prints the list of their ports; then, for each line of input, a list of the relays of each.
'use strict';

const { Device } = require('tplink-smarthome-simulator');
const readline = require('node:readline');

function relays(plug) {
  if (plug.children) {
    return plug.children.map((socket) => socket.sysinfo.state);
  }
  return [plug.data.system.sysinfo.relay_state];
}

async function start(made) {
  for (;;) {
    // A device writes into what it is made of.
    const plug = new Device({ address: '127.0.0.1', ...structuredClone(made) });
    // A client that went away is no reason to end.
    plug.deviceNetworking.on('error', () => {});
    try {
      await plug.start();
      return plug;
    } catch (error) {
      // The kernel chose the port for UDP, and somebody has the same one for TCP.
      if (error.code !== 'EADDRINUSE') throw error;
    }
  }
}

async function main() {
  const plugs = await Promise.all(JSON.parse(process.argv[2]).map(start));
  console.log(JSON.stringify(plugs.map((plug) => plug.port)));
  for await (const _ of readline.createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(plugs.map(relays)));
  }
  // Who started this has gone.
  process.exit(0);
}

main();
