// node listener.js PORT TOKEN ID: welcomes commserver and pushes one attempt to it.
const net = require("node:net");
const readline = require("node:readline");
const [port, token, id] = process.argv.slice(2);

net.createServer((link) => {
  link.on("error", () => link.destroy());
  readline.createInterface({ input: link }).on("error", () => {}).on("line", (line) => {
    console.log(line);
    const packet = JSON.parse(line);
    if (packet.cmd !== "HANDSHAKE" || packet.TOKEN !== token) return;
    link.write(line + "\n" + JSON.stringify({ cmd: "EXERCISE", id }) + "\n");
  });
}).listen(Number(port), "127.0.0.1");
