// Parcels: net/http and pgx/v5 with a pool of one connection. Takes five seconds to start, and waits for its database meanwhile.
//
// Why it is healthy:
//   - pgx reads sslmode=verify-full and sslrootcert from the URL and has then no second, plaintext attempt. VerifyConnection also refuses RSA
//     keys below 2,048 bits, which Go itself accepts.
//   - Every request waits at most 0.8 s for the connection and has 1.6 s to use it, as contexts, which pgx obeys everywhere. ConnectTimeout
//     bounds a connect that goes on in the background.
//   - When a context ends in mid-query, pgx clears up in the background (it tells the server to cancel) and keeps the pool's slot for up to
//     fifteen seconds while it cannot get through. With a pool of one that would outlast the outage, so the connection is taken out of
//     the pool (Hijack) and closed on the side; at most a handful of those can be around, as only `gate` lets new ones be made.
//   - `gate`: one attempt after each wait, doubling from 30 ms to two seconds, fully jittered; nobody else tries meanwhile.
//   - A write is one statement; a repeated Idempotency-Key finds its first row by a unique index. Nothing is retried.
//
// Style: net/http answers a missing, doubled or malformed Host itself (400, text/plain) before anything here runs.
package main

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log"
	"math/rand/v2"
	"mime"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

var errUnavailable = errors.New("the database cannot be used now")

type wrong struct {
	status int
	detail string
}

func (w wrong) Error() string { return w.detail }

// gate is a pgx.ConnectTracer, the one place that hears of every attempt's end, and the pool's BeforeConnect.
type gate struct {
	mu       sync.Mutex
	failures int
	trying   bool
	next     time.Time
}

func (g *gate) before(context.Context, *pgx.ConnConfig) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failures > 0 && (g.trying || time.Now().Before(g.next)) {
		return errUnavailable
	}
	g.trying = true
	return nil
}

func (g *gate) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	return ctx
}

func (g *gate) TraceConnectEnd(_ context.Context, data pgx.TraceConnectEndData) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trying = false
	if data.Err == nil {
		g.failures = 0
		return
	}
	ceiling := min(30*time.Millisecond<<min(g.failures, 10), 2*time.Second)
	g.next = time.Now().Add(rand.N(ceiling))
	g.failures++
	log.Printf("connect: attempt %d failed", g.failures)
}

// pgx asks a ConnectTracer to be a QueryTracer too.
func (g *gate) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (g *gate) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

type service struct{ pool *pgxpool.Pool }

type parcel struct {
	ID     int64  `json:"id"`
	Label  string `json:"label"`
	Weight int    `json:"weight"`
}

func open() (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		return nil, err
	}
	if config.ConnConfig.TLSConfig == nil || len(config.ConnConfig.Fallbacks) > 0 && anyPlain(config.ConnConfig.Fallbacks) {
		return nil, errors.New("DATABASE_URL must say sslmode=verify-full")
	}
	config.ConnConfig.TLSConfig.MinVersion = tls.VersionTLS12
	config.ConnConfig.TLSConfig.VerifyConnection = func(state tls.ConnectionState) error {
		for _, certificate := range state.PeerCertificates {
			if key, ok := certificate.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < 2048 {
				return errors.New("the server's key is too short")
			}
		}
		return nil
	}
	guard := &gate{}
	config.ConnConfig.Tracer = guard
	config.BeforeConnect = guard.before
	config.ConnConfig.ConnectTimeout = 1500 * time.Millisecond
	config.ConnConfig.RuntimeParams["statement_timeout"] = "1400"
	config.ConnConfig.RuntimeParams["lock_timeout"] = "1000"
	config.MaxConns = 1
	return pgxpool.NewWithConfig(context.Background(), config)
}

func anyPlain(fallbacks []*pgconn.FallbackConfig) bool {
	for _, fallback := range fallbacks {
		if fallback.TLSConfig == nil {
			return true
		}
	}
	return false
}

// rows runs one statement and reads all of its answer.
func (s *service) rows(ctx context.Context, sql string, values ...any) ([]parcel, error) {
	waiting, stop := context.WithTimeout(ctx, 800*time.Millisecond)
	defer stop()
	connection, err := s.pool.Acquire(waiting)
	if err != nil {
		return nil, errUnavailable
	}
	// Its own time, longer than lock_timeout: with what is left of one time for both, a queue behind a lock ends in a connection lost for
	// each request, and a new one made.
	ctx, cancel := context.WithTimeout(ctx, 1600*time.Millisecond)
	defer cancel()
	found, err := pgx.CollectRows(must(connection.Query(ctx, sql, values...)), pgx.RowToStructByPos[parcel])
	if connection.Conn().IsClosed() {
		_ = connection.Hijack() // frees the pool's slot at once; pgx closes the rest on the side
	} else {
		connection.Release()
	}
	var refused *pgconn.PgError
	if errors.As(err, &refused) && (strings.HasPrefix(refused.Code, "22") || strings.HasPrefix(refused.Code, "42")) {
		return nil, err
	}
	if err != nil {
		log.Printf("query: %T", err)
		return nil, errUnavailable
	}
	return found, nil
}

// must hands on rows only: pgx gives an error to whoever reads them.
func must(rows pgx.Rows, _ error) pgx.Rows { return rows }

var (
	hostPattern = regexp.MustCompile(`^([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*)(?::([0-9]{1,5}))?$`)
	labelText   = regexp.MustCompile(`^[A-Za-z0-9 _.-]{1,120}$`)
	keyText     = regexp.MustCompile(`^[!-~]{1,128}$`)
)

func known(host, path string) bool {
	found := hostPattern.FindStringSubmatch(strings.ToLower(host))
	if found == nil {
		return false
	}
	if port, _ := strconv.Atoi(found[2]); found[2] != "" && (port < 1 || port > 65535) {
		return false
	}
	switch name := found[1]; {
	case name == "parcels.example.test":
		return true
	case name == "127.0.0.1":
		return path == "/health/live" || path == "/health/ready"
	default:
		return strings.HasSuffix(name, ".track.example.test")
	}
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !known(r.Host, r.URL.Path) {
		log.Printf("audit: refused host %q", r.Host)
		problem(w, 400, "this host is not served here")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	status, body, err := s.route(w, r)
	var theirs wrong
	switch {
	case errors.As(err, &theirs):
		problem(w, theirs.status, theirs.detail)
	case errors.Is(err, errUnavailable):
		w.Header().Set("Retry-After", "1")
		problem(w, 503, "parcels are not available at the moment")
	case err != nil:
		log.Printf("bug: %v", err)
		problem(w, 500, "our mistake")
	default:
		write(w, status, "application/json", body)
	}
}

func (s *service) route(w http.ResponseWriter, r *http.Request) (int, any, error) {
	path, method := r.URL.Path, r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	item, isItem := strings.CutPrefix(path, "/parcels/")
	allow := map[string]string{"/": "GET", "/health/live": "GET", "/health/ready": "GET", "/parcels": "GET, POST"}[path]
	if isItem && item != "" {
		allow = "GET"
	}
	if allow == "" {
		return 0, nil, wrong{404, "nothing is here"}
	}
	if !slices.Contains(strings.Split(allow, ", "), method) {
		w.Header().Set("Allow", allow)
		return 0, nil, wrong{405, "this method is not for this address"}
	}
	switch {
	case path == "/health/live":
		return 200, map[string]bool{"live": true}, nil
	case isItem:
		return s.one(r, item)
	case path == "/parcels" && method == http.MethodPost:
		return s.create(r)
	case path == "/parcels":
		label := r.URL.Query().Get("label")
		if !labelText.MatchString(label) {
			return 0, nil, wrong{400, "label: 1 to 120 letters, digits, blanks or _.-"}
		}
		found, err := s.rows(r.Context(), "SELECT id, label, weight FROM parcels WHERE label = $1 ORDER BY id LIMIT 50", label)
		return 200, map[string]any{"parcels": found}, err
	default: // the landing page, and readiness
		found, err := s.rows(r.Context(), "SELECT id, label, weight FROM parcels ORDER BY id LIMIT 1")
		return 200, map[string]any{"first": found}, err
	}
}

func (s *service) one(r *http.Request, item string) (int, any, error) {
	id, err := strconv.ParseInt(item, 10, 64)
	if err != nil || id < 1 {
		return 0, nil, wrong{400, "an id is a positive number"}
	}
	found, err := s.rows(r.Context(), "SELECT id, label, weight FROM parcels WHERE id = $1", id)
	if err != nil {
		return 0, nil, err
	}
	if len(found) == 0 {
		return 0, nil, wrong{404, "no such parcel"}
	}
	return 200, found[0], nil
}

func (s *service) create(r *http.Request) (int, any, error) {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		return 0, nil, wrong{415, "send application/json"}
	}
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, nil, wrong{413, "at most 64 KiB"}
	}
	var asked parcel
	if err := json.Unmarshal(raw, &asked); err != nil {
		return 0, nil, wrong{400, "not a parcel in JSON"}
	}
	if !labelText.MatchString(asked.Label) || asked.Weight < 0 || asked.Weight > 100000 {
		return 0, nil, wrong{422, "label: 1 to 120 letters, digits, blanks or _.-; weight: 0 to 100000"}
	}
	var key *string
	if value := r.Header.Get("Idempotency-Key"); value != "" {
		if !keyText.MatchString(value) {
			return 0, nil, wrong{400, "Idempotency-Key: 1 to 128 visible characters"}
		}
		key = &value
	}
	const insert = `INSERT INTO parcels (label, weight, request_key) VALUES ($1, $2, $3)
		ON CONFLICT (request_key) DO UPDATE SET request_key = excluded.request_key RETURNING id, label, weight`
	found, err := s.rows(r.Context(), insert, asked.Label, asked.Weight, key)
	if err != nil {
		return 0, nil, err
	}
	if found[0].Label != asked.Label || found[0].Weight != asked.Weight {
		return 0, nil, wrong{409, "this Idempotency-Key was used for another parcel"}
	}
	return 201, found[0], nil
}

func problem(w http.ResponseWriter, status int, detail string) {
	body := map[string]any{"title": http.StatusText(status), "status": status, "detail": detail}
	write(w, status, "application/problem+json", body)
}

func write(w http.ResponseWriter, status int, kind string, body any) {
	text, _ := json.Marshal(body)
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

func main() {
	pool, err := open()
	if err != nil {
		log.Fatal("cannot use DATABASE_URL") // without the error: it quotes the URL
	}
	s := &service{pool}
	if len(os.Args) > 1 && os.Args[1] == "migrate" {
		for _, sql := range []string{
			`CREATE TABLE IF NOT EXISTS parcels (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, label text NOT NULL, weight int NOT NULL, request_key text UNIQUE)`,
			`CREATE INDEX IF NOT EXISTS parcels_label ON parcels (label)`,
			`INSERT INTO parcels (label, weight) SELECT 'first', 1 WHERE NOT EXISTS (SELECT FROM parcels)`,
		} {
			if _, err := pool.Exec(context.Background(), sql); err != nil {
				log.Fatal("migrate: ", err)
			}
		}
		return
	}
	time.Sleep(5 * time.Second) // stands for the route table that the real one loads; nothing listens meanwhile
	for attempt := 0; attempt < 40; attempt++ {
		if _, err = s.rows(context.Background(), "SELECT id, label, weight FROM parcels LIMIT 1"); err == nil {
			break
		}
		time.Sleep(rand.N(500 * time.Millisecond))
	}
	address := "127.0.0.1:" + os.Getenv("PORT")
	server := &http.Server{Addr: address, Handler: s, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		_ = server.Shutdown(ctx)
		os.Exit(0)
	}()
	log.Fatal(server.ListenAndServe())
}
