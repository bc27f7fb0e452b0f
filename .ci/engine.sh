# A container engine for the tests, sourced by .ci/run: the one that answers, else one of our own, which ends with us; and its images.

engine_room=
engine_pid=

engine_answers() { .venv/bin/python -c 'from chaos.environments.docker.engine import connect; connect()' 2>/dev/null; }

# Sets the variables that name the images, and CHAOS_TEST_ENGINE: from here on an absent engine is no reason to skip a test.
# Whoever is not root, or not on Debian, goes without an engine when none answers, and pytest lists what was skipped for it.
engine_start() {
    if ! engine_answers && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        command -v dockerd >/dev/null && command -v iptables >/dev/null || {
            apt-get update -qq
            DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends docker.io iptables >/dev/null
        }
        if ! engine_answers; then # installing it may have started it
            engine_room=$(mktemp -d)
            dockerd --data-root "$engine_room/data" --exec-root "$engine_room/exec" --pidfile "$engine_room/pid" \
                >"$engine_room/log" 2>&1 &
            engine_pid=$!
            for _ in $(seq 60); do
                if engine_answers || ! kill -0 "$engine_pid" 2>/dev/null; then break; fi
                sleep 0.5
            done
        fi
        engine_answers || {
            echo "no container engine could be started:"
            tail -n 20 "$engine_room/log"
            return 1
        }
    fi
    if engine_answers; then
        local images
        images=$(.venv/bin/python docker/build.py) || return 1
        export CHAOS_TEST_ENGINE=1
        while IFS= read -r image; do export "${image?}"; done <<<"$images"
    else
        echo "no container engine answers: what needs one is skipped"
    fi
}

# The engine ends by its pid, with its data; one that was there before stays, with the images.
engine_stop() {
    if [ -n "$engine_pid" ]; then
        kill "$engine_pid" 2>/dev/null || true
        wait "$engine_pid" 2>/dev/null || true
    fi
    if [ -n "$engine_room" ]; then
        # The network namespace that it keeps mounted for containers of the host's network outlives it.
        awk -v room="$engine_room/" 'index($2, room) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount
        rm -rf "$engine_room" || true
    fi
}
