#!/bin/sh
# Makes the secrets of compose.yaml in ./secrets, each readable by the user of the container that it is for, and a
# certificate that signs itself (put yours in its place). Never overwrites one.
#
# usage: sudo sh deploy/compose/make-secrets.sh HOST
set -eu
host=${1:?the name that callers use}
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
chmod 711 secrets

# put NAME UID: standard input becomes the file, unless it is there
put() {
  if [ -e "secrets/$1" ]; then cat > /dev/null; return; fi
  cat > "secrets/$1"
  chmod 400 "secrets/$1"
  chown "$2:$2" "secrets/$1"
}

castellan=65532 vllm=65531 others=999
password=$(openssl rand -hex 24)
printf '%s' "$password" | put postgres-password $others
password=$(cat secrets/postgres-password)
# The network of the two is internal to this machine, so there is no TLS between them.
printf 'postgres://castellan:%s@postgres:5432/castellan?sslmode=disable\n' "$password" | put database-url $castellan

password=$(openssl rand -hex 24)
printf 'bind 0.0.0.0\nprotected-mode yes\nrequirepass %s\nsave ""\nappendonly no\ndir /data\nmaxmemory 256mb\nmaxmemory-policy noeviction\n' "$password" | put redis.conf $others
password=$(sed -n 's/^requirepass //p' secrets/redis.conf)
printf 'redis://:%s@redis:6379/0\n' "$password" | put redis-url $castellan

openssl rand -hex 32 | put pepper $castellan
openssl rand -hex 32 | put vllm-key $castellan
put vllm-key-vllm $vllm < secrets/vllm-key

if [ ! -e secrets/tls.key ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 -subj "/CN=$host" \
    -addext "subjectAltName=DNS:$host" -keyout secrets/.key -out secrets/.crt 2> /dev/null
  put tls.key $castellan < secrets/.key
  put tls.crt $castellan < secrets/.crt
  rm -f secrets/.key secrets/.crt
fi
