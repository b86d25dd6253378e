#!/bin/sh
# Gathers the root file system of the image: Node, the libraries that it and the native packages load, the program.
# Run in a checkout that has been built with production packages.
#
# usage: sh deploy/container/rootfs.sh TARGET
set -eu
target=$1
home=/opt/castellan
app=$target$home
umask 022

mkdir -p "$app/assets/demo" "$target/usr/bin" "$target/etc/castellan" "$target/var/lib/castellan" "$target/tmp"
cp -R bin dist node_modules package.json LICENSE "$app/"
cp assets/demo/*.gguf "$app/assets/demo/"
cp deploy/container/health.mjs "$app/"
rm -rf "$app/node_modules/.bin" "$app/node_modules/.package-lock.json"
cp -L "$(command -v node)" "$target/usr/bin/node"

# What the loader finds for each of our binaries, and the loader itself, at the same paths.
{
  echo "$target/usr/bin/node"
  find "$app/node_modules" \( -name '*.node' -o -name '*.so' -o -name '*.so.*' \) -type f | grep -v musl
} | while read -r file; do ldd "$file" || true; done |
  sed -n -e 's/.*=> \(\/[^ ]*\) (0x.*/\1/p' -e 's/^[[:space:]]*\(\/[^ ]*\) (0x.*/\1/p' |
  grep -v "^$target" | sort -u |
  while read -r library; do
    mkdir -p "$target$(dirname "$library")"
    cp -L "$library" "$target$library"
  done

echo 'castellan:x:65532:65532::/var/lib/castellan:/nonexistent' > "$target/etc/passwd"
echo 'castellan:x:65532:' > "$target/etc/group"
echo 'hosts: files dns' > "$target/etc/nsswitch.conf"
chmod 1777 "$target/tmp"
chmod 0700 "$target/var/lib/castellan"
if [ "$(id -u)" = 0 ]; then chown 65532:65532 "$target/var/lib/castellan"; fi
