#!/bin/sh
# What the official image's entry point does, as far as its documentation promises it
# (https://github.com/docker-library/docs/tree/master/postgres): POSTGRES_USER, _PASSWORD, _DB (each also as ..._FILE),
# POSTGRES_INITDB_ARGS, POSTGRES_HOST_AUTH_METHOD, PGDATA, /docker-entrypoint-initdb.d, server arguments; root steps down to
# `postgres`. POSIX sh: the image holds no bash.
set -eu
[ -d /usr/lib/locale/C.utf8 ] || export LANG=C # built on a machine without it

say() { printf '%s\n' "entrypoint: $*" >&2; }
die() { say "$*"; exit 1; }

# `secret NAME default`: $NAME, else what the file $NAME_FILE holds, else the default.
secret() {
    eval "value=\${$1:-} file=\${$1_FILE:-}"
    [ -z "$value" ] || [ -z "$file" ] || die "$1 and $1_FILE are both set: which one is meant?"
    [ -z "$file" ] || value=$(cat "$file")
    printf '%s' "${value:-${2:-}}"
}

case "${1:-}" in '' | -*) set -- postgres "$@" ;; esac
[ "$1" = postgres ] || exec "$@"
for word in "$@"; do
    case "$word" in -\? | --help | --version | -V | --describe-config) exec "$@" ;; esac
done

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    chown -R postgres:postgres "$PGDATA"
    chown postgres:postgres /var/run/postgresql
    chmod 3775 /var/run/postgresql
    chmod 0700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$0" "$@"
fi

run_scripts() {
    for script in /docker-entrypoint-initdb.d/*; do
        case "$script" in
            *.sh) if [ -x "$script" ]; then say "running $script"; "$script"; else say "sourcing $script"; . "$script"; fi ;;
            *.sql) say "running $script"; run_sql -f "$script" ;;
            *.sql.gz) say "running $script"; gzip -dc "$script" | run_sql ;;
            '/docker-entrypoint-initdb.d/*') ;;
            *) say "ignoring $script" ;;
        esac
    done
}

run_sql() { psql -v ON_ERROR_STOP=1 --no-password --no-psqlrc -U "$POSTGRES_USER" -d "$POSTGRES_DB" "$@"; }

# `initialise server-arguments...`: the cluster, its one user and database, the scripts; on a server that only its socket reaches.
initialise() {
    POSTGRES_PASSWORD=$(secret POSTGRES_PASSWORD)
    POSTGRES_USER=$(secret POSTGRES_USER postgres)
    POSTGRES_DB=$(secret POSTGRES_DB "$POSTGRES_USER")
    method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
    [ -n "$POSTGRES_PASSWORD" ] || [ "$method" = trust ] || die "POSTGRES_PASSWORD is empty: set it, or POSTGRES_HOST_AUTH_METHOD=trust"
    export POSTGRES_USER POSTGRES_DB PGPASSWORD="$POSTGRES_PASSWORD"
    umask 077
    given=$(mktemp)
    printf '%s\n' "$POSTGRES_PASSWORD" >"$given"
    # shellcheck disable=SC2086  # the arguments are words, as they are with the official image
    initdb -D "$PGDATA" -U "$POSTGRES_USER" ${POSTGRES_PASSWORD:+--pwfile="$given"} ${POSTGRES_INITDB_ARGS:-}
    rm -f "$given"
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
    # As the official image has it: everybody may knock, and the socket is where it has it (psql of this build looks into /tmp).
    printf "listen_addresses = '*'\nunix_socket_directories = '/var/run/postgresql, /tmp'\n" >>"$PGDATA/postgresql.conf"
    shift
    postgres "$@" -c listen_addresses='' -c unix_socket_directories=/var/run/postgresql -p "${PGPORT:-5432}" &
    server=$!
    tries=0
    until pg_isready -q -h /var/run/postgresql; do
        kill -0 "$server" 2>/dev/null || die "the server for the first set-up ended"
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || die "the server for the first set-up does not take connections"
        sleep 0.05
    done
    if [ "$POSTGRES_DB" != postgres ]; then
        psql -v ON_ERROR_STOP=1 --no-password --no-psqlrc -U "$POSTGRES_USER" -d postgres -v name="$POSTGRES_DB" <<'SQL'
SELECT format('CREATE DATABASE %I', :'name') WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
SQL
    fi
    run_scripts
    kill -INT "$server"
    wait "$server" || die "the server for the first set-up did not stop as it should"
    unset PGPASSWORD
}

export PGHOST="${PGHOST:-/var/run/postgresql}"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initialise "$@"
    say "ready for the first start"
fi
unset PGHOST
exec "$@"
