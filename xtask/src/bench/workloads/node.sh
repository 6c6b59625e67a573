# Files, a server and its client on the loopback interface, compression, a worker, a child process.
exec node -e '
const http = require("http"), fs = require("fs"), zlib = require("zlib");
const { execFile } = require("child_process"), { Worker } = require("worker_threads");
const check = (holds, what) => { if (!holds) { console.error(what); process.exit(1); } };
fs.watch("/tmp", () => {}).unref();
fs.writeFileSync("/tmp/file", "x".repeat(1e6));
const server = http.createServer((_, answer) => answer.end(zlib.gzipSync("hello")));
server.listen(0, "127.0.0.1", () => {
  http.get({ host: "127.0.0.1", port: server.address().port }, (answer) => {
    const parts = [];
    answer.on("data", (part) => parts.push(part));
    answer.on("end", () => {
      check(zlib.gunzipSync(Buffer.concat(parts)).toString() === "hello", "the answer");
      server.close();
      const code = "require(\"worker_threads\").parentPort.postMessage(require(\"crypto\").randomBytes(8).length)";
      new Worker(code, { eval: true }).on("message", (length) => {
        check(length === 8, "the worker");
        execFile("uname", ["-r"], (error) => check(!error, "the child"));
      });
    });
  });
});'
