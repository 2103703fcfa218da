#!/bin/sh
# Draw the passwords of the system in compose.yaml, once: files in deploy/compose/secrets, or in the folder that is named.
# They are mounted as files, since a container whose root is read-only can be given no other secret.
set -eu
umask 077
place=${1:-$(dirname "$0")/secrets}
mkdir -p "$place"

drawn() { # letters and digits: it stands in URLs, too
    LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom | head -c 40
}

for name in postgres_password redis_password grafana_password; do
    [ -e "$place/$name" ] || drawn >"$place/$name"
done
cat >"$place/serve.toml" <<END
store = "postgresql://torchstone:$(cat "$place/postgres_password")@postgres/torchstone"
cache = "redis://:$(cat "$place/redis_password")@redis:6379/0"
END
# Nobody else can enter the folder; in the containers, users other than root read the files.
chmod 700 "$place"
chmod 644 "$place"/*
echo "passwords are in $place"
