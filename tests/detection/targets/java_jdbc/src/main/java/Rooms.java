import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.IOException;
import java.io.PrintWriter;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.security.Security;
import java.sql.Connection;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.ThreadLocalRandom;
import java.util.logging.Logger;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.sql.DataSource;

/**
 * Rooms: the JDK's own HTTP server, HikariCP over pgjdbc. Starts without its database; a write is a form and must carry an Idempotency-Key.
 *
 * <p>Why it is healthy:
 * <ul>
 * <li>pgjdbc's defaults wait for ever. connectTimeout, sslResponseTimeout, loginTimeout and socketTimeout are all set, and the server's
 *     statement_timeout and lock_timeout are shorter than socketTimeout. Hikari waits 0.8 s for a connection.
 * <li>Hikari tries to connect with a wait that doubles but has no jitter, and up to five seconds long. `Patient` therefore tries inside
 *     one getConnection: doubling, two seconds at most, fully jittered. Hikari fills its pool from one thread, so it is one chain.
 * <li>sslmode=verify-full checks chain and name. Keys of 1,024 bits, which Java accepts, are forbidden before the first handshake.
 * <li>A write is one statement in autocommit. A repeated key meets a unique index. Nothing is retried.
 * <li>A thread for each request: those that wait for the database never keep a probe or a wrong request waiting.
 * </ul>
 */
public final class Rooms {
    private static final Logger LOG = Logger.getLogger("rooms");
    private static final String LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?";
    private static final Pattern HOST = Pattern.compile("(" + LABEL + "(?:\\." + LABEL + ")*)\\.?(?::([1-9][0-9]{0,4}))?");
    private static final Pattern NAME = Pattern.compile("[A-Za-z0-9 _.-]{1,100}");
    private static final Pattern KEY = Pattern.compile("[!-~]{8,200}");
    private static final String API = "rooms.example.test";
    private static final String LANDING = ".stay.example.test";
    private final DataSource database;

    private Rooms(DataSource database) { this.database = database; }

    /** The caller's mistake. */
    private static final class Wrong extends Exception {
        final int status;
        Wrong(int status, String detail) { super(detail); this.status = status; }
    }

    private record Room(long id, String name) {
        String json() { return "{\"id\":" + id + ",\"name\":\"" + name + "\"}"; } // NAME needs no escaping
    }

    /** Tries until it has a connection or half a minute has gone. */
    private record Patient(DataSource inner) implements DataSource {
        @Override public Connection getConnection() throws SQLException {
            long end = System.nanoTime() + 30_000_000_000L;
            for (int attempt = 0; ; attempt++) {
                try {
                    return inner.getConnection();
                } catch (SQLException error) {
                    LOG.warning("connect: attempt " + (attempt + 1) + " failed, " + error.getSQLState());
                    if (System.nanoTime() > end) throw error;
                    try {
                        Thread.sleep(ThreadLocalRandom.current().nextLong(1 + Math.min(2000, 30L << Math.min(attempt, 10))));
                    } catch (InterruptedException stop) {
                        Thread.currentThread().interrupt();
                        throw error;
                    }
                }
            }
        }
        @Override public Connection getConnection(String user, String password) throws SQLException { return getConnection(); }
        @Override public PrintWriter getLogWriter() { return null; }
        @Override public void setLogWriter(PrintWriter out) { }
        @Override public void setLoginTimeout(int seconds) { }
        @Override public int getLoginTimeout() { return 0; }
        @Override public Logger getParentLogger() { return LOG; }
        @Override public <T> T unwrap(Class<T> type) throws SQLException { throw new SQLException("not a wrapper"); }
        @Override public boolean isWrapperFor(Class<?> type) { return false; }
    }

    private static DataSource plain(Map<String, String> env) {
        var source = new org.postgresql.ds.PGSimpleDataSource();
        source.setServerNames(new String[] {env.get("PGHOST")});
        source.setPortNumbers(new int[] {Integer.parseInt(env.get("PGPORT"))});
        source.setDatabaseName(env.get("PGDATABASE"));
        source.setUser(env.get("PGUSER"));
        source.setPassword(env.get("PGPASSWORD"));
        source.setSslMode("verify-full");
        source.setSslRootCert(env.get("PGSSLROOTCERT"));
        source.setGssEncMode("disable");
        source.setConnectTimeout(1);
        source.setSslResponseTimeout(1000);
        source.setLoginTimeout(2);
        source.setSocketTimeout(1);
        source.setOptions("-c statement_timeout=900 -c lock_timeout=800");
        return source;
    }

    private static DataSource pool(DataSource source) {
        var config = new HikariConfig();
        config.setDataSource(new Patient(source));
        config.setMaximumPoolSize(5);
        config.setMinimumIdle(1);
        config.setConnectionTimeout(800);
        config.setValidationTimeout(500);
        config.setInitializationFailTimeout(-1);
        return new HikariDataSource(config);
    }

    private List<Room> ask(String sql, Object... values) throws SQLException {
        try (var connection = database.getConnection(); var statement = connection.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) statement.setObject(i + 1, values[i]);
            var found = new ArrayList<Room>();
            if (statement.execute()) {
                try (var rows = statement.getResultSet()) {
                    while (rows.next()) found.add(new Room(rows.getLong(1), rows.getString(2)));
                }
            }
            return found;
        }
    }

    private static boolean known(HttpExchange exchange) {
        var hosts = new ArrayList<>(exchange.getRequestHeaders().getOrDefault("Host", List.of()));
        if (hosts.size() != 1) return false;
        URI target = exchange.getRequestURI();
        if (target.isAbsolute()) hosts.add(String.valueOf(target.getRawAuthority())); // RFC 9112, 3.2.2
        String path = String.valueOf(target.getPath());
        return hosts.stream().allMatch(host -> {
            Matcher found = HOST.matcher(host.strip().toLowerCase(java.util.Locale.ROOT));
            if (!found.matches() || found.group(2) != null && Integer.parseInt(found.group(2)) > 65535) return false;
            String name = found.group(1);
            if (name.equals("127.0.0.1")) return path.equals("/livez") || path.equals("/readyz");
            return name.equals(API) || name.endsWith(LANDING);
        });
    }

    private static Map<String, String> form(String text) throws Wrong {
        var fields = new HashMap<String, String>();
        if (text == null) return fields;
        try {
            for (String pair : text.split("&")) {
                String[] parts = pair.split("=", 2);
                fields.put(URLDecoder.decode(parts[0], StandardCharsets.UTF_8), parts.length > 1 ? URLDecoder.decode(parts[1], StandardCharsets.UTF_8) : "");
            }
        } catch (IllegalArgumentException bad) {
            throw new Wrong(400, "this form cannot be decoded");
        }
        return fields;
    }

    private static String name(Map<String, String> fields) throws Wrong {
        String name = fields.getOrDefault("name", "");
        if (!NAME.matcher(name).matches()) throw new Wrong(400, "name is 1 to 100 letters, digits, blanks or _.-");
        return name;
    }

    private static String list(List<Room> rooms) { return "[" + String.join(",", rooms.stream().map(Room::json).toList()) + "]"; }

    private void handle(HttpExchange exchange) throws IOException {
        try {
            if (!known(exchange)) {
                LOG.warning("audit: host refused");
                throw new Wrong(400, "unknown host");
            }
            route(exchange);
        } catch (Wrong wrong) {
            problem(exchange, wrong.status, wrong.getMessage());
        } catch (SQLException error) {
            String state = String.valueOf(error.getSQLState());
            LOG.warning("database: " + state);
            boolean ours = state.startsWith("22") || state.startsWith("23") || state.startsWith("42");
            if (!ours) exchange.getResponseHeaders().set("Retry-After", "1");
            problem(exchange, ours ? 500 : 503, ours ? "our mistake" : "rooms are not available at the moment");
        } catch (RuntimeException bug) {
            LOG.severe("bug: " + bug);
            problem(exchange, 500, "our mistake");
        } finally {
            exchange.close();
        }
    }

    private void route(HttpExchange exchange) throws IOException, SQLException, Wrong {
        String path = String.valueOf(exchange.getRequestURI().getPath());
        String method = exchange.getRequestMethod().equals("HEAD") ? "GET" : exchange.getRequestMethod();
        boolean item = path.matches("/rooms/[^/]+");
        if (!item && !List.of("/", "/livez", "/readyz", "/rooms").contains(path)) throw new Wrong(404, "nothing here");
        if (!method.equals("GET") && !(method.equals("POST") && path.equals("/rooms"))) {
            exchange.getResponseHeaders().set("Allow", path.equals("/rooms") ? "GET, POST" : "GET");
            throw new Wrong(405, "not this method");
        }
        if (path.equals("/livez")) {
            send(exchange, 200, "application/json", "{\"live\":true}");
        } else if (path.equals("/readyz") || path.equals("/")) {
            var rooms = ask("SELECT id, name FROM rooms ORDER BY id LIMIT 1");
            if (path.equals("/")) send(exchange, 200, "text/html; charset=utf-8", "<!doctype html><title>Rooms</title><p>" + rooms.size());
            else send(exchange, 200, "application/json", "{\"ready\":true}");
        } else if (item) {
            if (!path.matches("/rooms/[0-9]{1,17}")) throw new Wrong(404, "no such room");
            var rooms = ask("SELECT id, name FROM rooms WHERE id = ?", Long.parseLong(path.substring(7)));
            if (rooms.isEmpty()) throw new Wrong(404, "no such room");
            send(exchange, 200, "application/json", rooms.get(0).json());
        } else if (method.equals("GET")) {
            send(exchange, 200, "application/json", list(ask("SELECT id, name FROM rooms WHERE name = ? LIMIT 50", name(form(exchange.getRequestURI().getRawQuery())))));
        } else {
            create(exchange);
        }
    }

    private void create(HttpExchange exchange) throws IOException, SQLException, Wrong {
        String type = String.valueOf(exchange.getRequestHeaders().getFirst("Content-Type")).split(";")[0].strip();
        if (!type.equalsIgnoreCase("application/x-www-form-urlencoded")) throw new Wrong(415, "send a form");
        byte[] body = exchange.getRequestBody().readNBytes(65537);
        if (body.length > 65536) throw new Wrong(413, "at most 64 KiB");
        String name = name(form(new String(body, StandardCharsets.UTF_8)));
        String key = String.valueOf(exchange.getRequestHeaders().getFirst("Idempotency-Key"));
        if (!KEY.matcher(key).matches()) throw new Wrong(400, "an Idempotency-Key of 8 to 200 visible characters is needed");
        var stored = ask("INSERT INTO rooms (name, request_key) VALUES (?, ?) ON CONFLICT (request_key) DO NOTHING RETURNING id, name", name, key);
        var room = stored.isEmpty() ? ask("SELECT id, name FROM rooms WHERE request_key = ?", key).get(0) : stored.get(0);
        if (!room.name().equals(name)) throw new Wrong(422, "this Idempotency-Key was used for another room");
        send(exchange, 201, "application/json", room.json());
    }

    private static void problem(HttpExchange exchange, int status, String detail) throws IOException {
        send(exchange, status, "application/problem+json", "{\"type\":\"about:blank\",\"status\":" + status + ",\"title\":\"" + detail + "\"}");
    }

    private static void send(HttpExchange exchange, int status, String type, String text) throws IOException {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        boolean head = exchange.getRequestMethod().equals("HEAD");
        exchange.getResponseHeaders().set("Content-Type", type);
        exchange.sendResponseHeaders(status, head ? -1 : bytes.length);
        if (!head) exchange.getResponseBody().write(bytes);
    }

    public static void main(String[] arguments) throws Exception {
        for (String what : List.of("jdk.certpath.disabledAlgorithms", "jdk.tls.disabledAlgorithms")) {
            Security.setProperty(what, Security.getProperty(what) + ", RSA keySize < 2048");
        }
        var env = new HashMap<>(System.getenv());
        DataSource source = plain(env);
        if (arguments.length > 0 && arguments[0].equals("migrate")) {
            try (var connection = source.getConnection(); var statement = connection.createStatement()) {
                statement.execute("CREATE TABLE IF NOT EXISTS rooms (id bigserial PRIMARY KEY, name text NOT NULL, request_key text UNIQUE)");
                statement.execute("CREATE INDEX IF NOT EXISTS rooms_name ON rooms (name)");
                statement.execute("INSERT INTO rooms (name) SELECT 'first' WHERE NOT EXISTS (SELECT FROM rooms)");
            }
            return;
        }
        var rooms = new Rooms(pool(source));
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(env.get("PORT"))), 256);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", rooms::handle);
        server.start();
    }
}
