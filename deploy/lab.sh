#!/bin/sh
# JupyterLab, reachable by those who have its token. JUPYTER_TOKEN or JUPYTER_PASSWORD_HASH (of `jupyter server password`)
# says which; by default it draws one and prints it. LAB_ADDRESS is the address it listens on, this container's own by
# default: publish it on the host's loopback (-p 127.0.0.1:8888:8888), or put TLS before it.
set -eu

if [ "${JUPYTER_TOKEN-drawn}" = "" ] && [ -z "${JUPYTER_PASSWORD_HASH-}" ]; then
    echo "error: JUPYTER_TOKEN is empty: that lets everybody in" >&2
    echo "hint: set a token, or unset it to have one drawn" >&2
    exit 2
fi
if [ -n "${JUPYTER_PASSWORD_HASH-}" ]; then
    set -- --PasswordIdentityProvider.hashed_password="$JUPYTER_PASSWORD_HASH" --IdentityProvider.token=
else
    set --
fi
exec jupyter lab --no-browser --ip "${LAB_ADDRESS:-0.0.0.0}" --port "${LAB_PORT:-8888}" --notebook-dir /work "$@"
