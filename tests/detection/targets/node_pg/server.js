'use strict'
/*
 * Notes: Node's own http server and the pg pool. Exits at start when its database is not there. One JSON line a request,
 * as pino writes them, and metrics as prom-client does.
 *
 * Why it is healthy:
 * - `ssl` is an object with the CA and nothing from a URL: pg lets a URL's sslmode overwrite it. Node then checks chain and host name;
 *   SECLEVEL=2 refuses keys of 1,024 bits, which OpenSSL 3.0 would still accept. pg never goes on in plaintext when `ssl` is set.
 * - connectionTimeoutMillis bounds waiting for a connection and making one, query_timeout a statement; a client whose statement timed out is
 *   destroyed. The server's statement_timeout and lock_timeout end what would go on there.
 * - pg's pool tries to connect whenever somebody asks. `gate` lets one try pass after each wait; waits double up to two seconds and are
 *   fully jittered. Requests in between are refused at once.
 * - Every write is one statement. A repeated Idempotency-Key meets a unique index; nothing is retried in here.
 * - Both error listeners are there. Without the pool's, a connection that dies while idle ends the process; without the client's, one that
 *   dies between being checked out and its query does (found by resetting connections: pool.query() would have had its own).
 *
 * Style: a login first; landing pages only under their own hosts (anything else there is a 404), keep-alive of one second, and a note's
 * text occurs twice in what is read back (once in its link).
 */
const http = require('node:http')
const fs = require('node:fs')
const crypto = require('node:crypto')
const { Pool, DatabaseError } = require('pg')

const env = process.env
const pool = new Pool({
  host: env.DB_HOST, port: Number(env.DB_PORT), user: env.DB_USER, password: env.DB_PASSWORD, database: env.DB_NAME,
  ssl: { ca: fs.readFileSync(env.DB_CA, 'utf8'), rejectUnauthorized: true, minVersion: 'TLSv1.2', ciphers: 'DEFAULT@SECLEVEL=2' },
  max: 5, connectionTimeoutMillis: 1200, query_timeout: 1500, statement_timeout: 1400, lock_timeout: 1000, idleTimeoutMillis: 60000,
  keepAlive: true, application_name: 'notes'
})
pool.on('error', () => {})
const tls = {}
pool.on('connect', (client) => {
  client.on('error', () => {})
  const socket = client.connection?.stream
  if (socket?.getCipher) Object.assign(tls, { protocol: socket.getProtocol(), cipher: socket.getCipher()?.standardName })
})

const counts = new Map()
const count = (name, by = 1) => counts.set(name, (counts.get(name) ?? 0) + by)
function exposition () {
  const lines = [...counts].map(([name, value]) => `${name} ${value}`)
  return ['# TYPE pg_pool_in_use gauge', `pg_pool_in_use ${pool.totalCount - pool.idleCount}`, ...lines, ''].join('\n')
}

function observe (request, response, seen) {
  const begun = process.hrtime.bigint()
  const reqId = crypto.randomUUID()
  response.setHeader('X-Request-Id', reqId)
  response.on('close', () => {
    const seconds = Number(process.hrtime.bigint() - begun) / 1e9
    const status = response.statusCode
    count(`http_requests_total{route="${seen.route}",method="${request.method}",status_code="${status}"}`)
    count(`http_request_duration_seconds_bucket{route="${seen.route}",le="+Inf"}`)
    count(`http_request_duration_seconds_count{route="${seen.route}"}`)
    if (seen.refused) count('host_rejections_total')
    process.stdout.write(JSON.stringify({
      level: status >= 500 ? 50 : status >= 400 ? 40 : 30, time: Date.now(), msg: seen.refused ? 'host refused' : 'request completed',
      req: { id: reqId, method: request.method, host: request.headers.host, route: seen.route, remoteAddress: request.socket.remoteAddress },
      res: { statusCode: status }, db: { tls: { ...tls } }, err: status >= 400 ? { code: `E${status}` } : undefined, responseTime: seconds * 1000
    }) + '\n')
  })
}

class Unavailable extends Error {}
class Wrong extends Error {
  constructor (status, detail, headers = {}) { super(detail); this.status = status; this.headers = headers }
}

const gate = { failures: 0, nextTry: 0, trying: false }
async function checkout () {
  const failing = gate.failures > 0 && pool.idleCount === 0
  if (failing && (gate.trying || Date.now() < gate.nextTry)) throw new Unavailable('waiting to connect again')
  if (failing) gate.trying = true
  const connecting = pool.idleCount === 0 && pool.totalCount < 5
  try {
    const client = await pool.connect()
    gate.failures = 0
    return client
  } catch (error) {
    count('pg_connect_errors_total')
    if (connecting) gate.nextTry = Date.now() + Math.random() * Math.min(2000, 40 * 2 ** gate.failures++)
    throw new Unavailable(error.message)
  } finally {
    if (failing) gate.trying = false
  }
}

async function query (text, values) {
  const client = await checkout()
  try {
    const result = await client.query(text, values)
    client.release()
    return result.rows
  } catch (error) {
    const known = error instanceof DatabaseError && typeof error.code === 'string'
    client.release(!(known && /^(22|23|55)/.test(error.code))) // true: throw the connection away
    if (!known || /^(08|28|53|55|57|58)/.test(error.code)) throw new Unavailable(error.message)
    throw error
  }
}

const label = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?'
const hostPattern = new RegExp(`^(${label}(?:\\.${label})*)(?::([1-9][0-9]{0,4}))?$`)
function surface (host, path) {
  const found = hostPattern.exec(host.replace(/^[ \t]+|[ \t]+$/g, '').toLowerCase())
  if (!found || Number(found[2] || 80) > 65535) return null
  const name = found[1]
  if (name === env.API_HOST) return 'api'
  if (name === '127.0.0.1') return path === '/livez' || path === '/readyz' ? 'api' : null
  return name.endsWith('.' + env.LANDING_DOMAIN) && name.split('.').length === env.LANDING_DOMAIN.split('.').length + 1 ? 'landing' : null
}

function hostsOf (request) {
  const hosts = []
  for (let i = 0; i < request.rawHeaders.length; i += 2) { // headers.host would show the first of several
    if (request.rawHeaders[i].toLowerCase() === 'host') hosts.push(request.rawHeaders[i + 1])
  }
  const absolute = /^[a-z][a-z0-9+.-]*:\/\/([^/?#]*)/i.exec(request.url)
  return hosts.length === 1 ? [...hosts, ...(absolute ? [absolute[1]] : [])] : ['']
}

const sign = (user) => crypto.createHmac('sha256', env.TOKEN_SECRET).update(user).digest('base64url')
function authorize (request) {
  const [user, mac] = (/^Bearer (.+)$/.exec(request.headers.authorization || '')?.[1] || '').split('.')
  const good = user && mac && mac.length === 43 && crypto.timingSafeEqual(Buffer.from(mac, 'latin1'), Buffer.from(sign(user)))
  if (!good) throw new Wrong(401, 'log in first', { 'WWW-Authenticate': 'Bearer' })
}

async function bodyOf (request, type) {
  if ((request.headers['content-type'] || '').split(';')[0].trim().toLowerCase() !== type) throw new Wrong(415, `send ${type}`)
  const parts = []
  let size = 0
  for await (const part of request) {
    if ((size += part.length) > 65536) throw new Wrong(413, 'at most 64 KiB', { Connection: 'close' })
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}

function textOf (value) {
  if (typeof value !== 'string' || !/^[^\p{C}]{1,300}$/u.test(value)) throw new Wrong(422, 'text is 1 to 300 characters, none of them a control character')
  return value
}

const shown = (row) => ({ id: row.id, text: row.text, self: '/notes?text=' + encodeURIComponent(row.text) })

const routes = {
  'api GET /livez': async () => [200, { up: true }],
  'api GET /metrics': async () => [200, { metrics: exposition() }],
  'api GET /readyz': async () => [200, await query('SELECT 1 AS ready')],
  'api POST /login': async (request) => {
    const form = new URLSearchParams(await bodyOf(request, 'application/x-www-form-urlencoded'))
    if (form.get('user') !== 'u' || form.get('password') !== env.LOGIN_PASSWORD) throw new Wrong(401, 'wrong user or password')
    return [200, { access_token: 'u.' + sign('u') }]
  },
  'api GET /notes': async (request, url) => {
    authorize(request)
    return [200, { notes: (await query('SELECT id, text FROM notes WHERE text = $1 LIMIT 50', [textOf(url.searchParams.get('text'))])).map(shown) }]
  },
  'api GET /notes/:id': async (request, url, id) => {
    authorize(request)
    if (!/^[0-9]{1,9}$/.test(id)) throw new Wrong(400, 'an id is a number')
    const rows = await query('SELECT id, text FROM notes WHERE id = $1', [Number(id)])
    if (!rows.length) throw new Wrong(404, 'no such note')
    return [200, shown(rows[0])]
  },
  'api POST /notes': async (request) => {
    authorize(request)
    let body
    try { body = JSON.parse(await bodyOf(request, 'application/json')) } catch (error) { throw error instanceof Wrong ? error : new Wrong(400, 'not JSON') }
    const text = textOf(body?.text)
    const key = request.headers['idempotency-key'] ?? null
    if (key !== null && !/^[!-~]{1,200}$/.test(key)) throw new Wrong(400, 'Idempotency-Key is 1 to 200 visible characters')
    const stored = await query('INSERT INTO notes (text, request_key) VALUES ($1, $2) ON CONFLICT (request_key) DO NOTHING RETURNING id, text', [text, key])
    if (stored.length) return [201, shown(stored[0])]
    const [earlier] = await query('SELECT id, text FROM notes WHERE request_key = $1', [key])
    if (earlier?.text !== text) throw new Wrong(409, 'this Idempotency-Key was used for another note')
    return [200, shown(earlier)]
  },
  'landing GET /': async () => [200, `<!doctype html><title>Notes</title><p>${(await query('SELECT count(*) AS n FROM (SELECT FROM notes LIMIT 100) x'))[0].n} notes</p>`]
}

function answer (response, status, body, headers = {}) {
  const html = typeof body === 'string' || body.metrics !== undefined
  const type = body.metrics !== undefined ? 'text/plain; version=0.0.4' : html ? 'text/html; charset=utf-8' : status >= 400 ? 'application/problem+json' : 'application/json'
  const bytes = Buffer.from(html ? body.metrics ?? body : JSON.stringify(body))
  response.writeHead(status, { 'Content-Type': type, 'Content-Length': bytes.length, ...headers })
  response.end(response.req.method === 'HEAD' ? undefined : bytes)
}
const problem = (status, detail) => ({ type: 'about:blank', title: http.STATUS_CODES[status], status, detail })

async function handle (request, response) {
  const seen = { route: 'unmatched', refused: false }
  observe(request, response, seen)
  try {
    const path = /^\/[^?#]*/.exec(request.url.replace(/^[a-z][a-z0-9+.-]*:\/\/[^/?#]*/i, ''))?.[0] ?? '/'
    const where = hostsOf(request).map((host) => surface(host, path))
    seen.refused = where.includes(null)
    if (seen.refused) throw new Wrong(400, 'unknown host', { Connection: 'close' })
    const url = new URL('http://unused' + request.url.slice(Math.max(0, request.url.indexOf(path))).replace(/^\/\/+/, '/'))
    const method = request.method === 'HEAD' ? 'GET' : request.method
    const item = /^\/notes\/([^/]+)$/.exec(path)
    const known = item ? '/notes/:id' : path
    const route = routes[`${where[0]} ${method} ${known}`]
    if (!route) {
      const others = Object.keys(routes).filter((name) => name.startsWith(where[0] + ' ') && name.endsWith(' ' + known)).map((name) => name.split(' ')[1])
      throw others.length ? new Wrong(405, 'not this method', { Allow: others.join(', ') }) : new Wrong(404, 'nothing here')
    }
    seen.route = known
    answer(response, ...await route(request, url, item?.[1]))
  } catch (error) {
    if (error instanceof Wrong) return answer(response, error.status, problem(error.status, error.message), error.headers)
    if (error instanceof Unavailable) return answer(response, 503, problem(503, 'notes are not available at the moment'), { 'Retry-After': '1' })
    answer(response, 500, problem(500, 'our mistake'))
  }
}

async function main () {
  if (process.argv[2] === 'migrate') {
    await query('CREATE TABLE IF NOT EXISTS notes (id serial PRIMARY KEY, text text NOT NULL, request_key text UNIQUE)')
    await query('CREATE INDEX IF NOT EXISTS notes_text ON notes (text)')
    await query("INSERT INTO notes (text) SELECT 'hello' WHERE NOT EXISTS (SELECT FROM notes)")
    return pool.end()
  }
  await query('SELECT 1')
  // requireHostHeader: false, so that a missing Host is answered in our schema and not by an empty 400
  const server = http.createServer({ requireHostHeader: false, keepAliveTimeout: 1000, requestTimeout: 10000 }, handle)
  server.on('clientError', (error, socket) => {
    const text = JSON.stringify(problem(400, 'not an HTTP request we can read'))
    if (socket.writable) socket.end(`HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nContent-Length: ${text.length}\r\nConnection: close\r\n\r\n${text}`)
  })
  server.listen(Number(env.PORT), '127.0.0.1')
  process.on('SIGTERM', () => process.exit(0))
}
main().catch(() => process.exit(1))
