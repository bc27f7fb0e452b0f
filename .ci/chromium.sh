# A Chromium for the tests of pages, sourced by .ci/run: the one that is there, else Debian's.

# From here on an absent one is no reason to skip a test. Whoever is not root, or not on Debian, goes without, and pytest says so.
chromium_get() {
    if ! command -v chromium >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core >/dev/null
    fi
    if command -v chromium >/dev/null; then
        export CHAOS_TEST_CHROMIUM=1
    else
        echo "no Chromium: pages are not looked at"
    fi
}
