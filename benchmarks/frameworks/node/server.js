// node:http with three routes and nothing else: it has no host validation to switch on.
const http = require("node:http");

http
  .createServer((request, response) => {
    const path = request.url.split("?")[0];
    const base = `http://${request.headers.host}`;
    const answer = (status, body, headers = {}) => {
      response.writeHead(status, { "Content-Type": "application/json", ...headers });
      response.end(JSON.stringify(body));
    };
    request.resume();
    request.on("end", () => {
      if (request.method === "GET" && path === "/healthz") return answer(200, { status: "up" });
      if (request.method === "GET" && path === "/items/1") return answer(200, { id: 1, self: `${base}/items/1` });
      if (request.method === "POST" && path === "/items") return answer(201, { name: "made" }, { Location: "/items/1" });
      return answer(404, { title: "not found" });
    });
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
