#!/usr/bin/env bash
# Build the images of the Containerfile where there is neither an engine nor a base image: by buildah, on a base made by
# debootstrap, both of Debian 12 (apt install buildah debootstrap), as root. `make image` does so, and starts them.
#
#     unshare --mount --propagation private deploy/containers/without_engine.sh FOLDER [cpu] [cuda]
#
# For each image TARGET: FOLDER/TARGET is its OCI layout, FOLDER/TARGET.json what buildah says of it, its health check too,
# and FOLDER/TARGET.root names the folder of its files, in which chroot can start it.
# What differs from an engine: the base is Debian's own Python 3.11 in place of python:3.11-slim.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(realpath --canonicalize-missing "${1:?give a folder for what is made}")
shift
base=$folder/base
export HOME=$folder/home
mkdir -p "$folder" "$HOME/.config/containers"
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$HOME/.config/containers/policy.json"

made() { buildah --root "$folder/storage" --runroot "$folder/run" --storage-driver vfs "$@"; }

if ! made inspect --type image localhost/python >/dev/null 2>&1; then
  rm -rf "$base"
  debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,python-is-python3,ca-certificates bookworm "$base"
  rm -rf "$base"/usr/lib/python3*/EXTERNALLY-MANAGED "$base"/var/cache/apt/archives/*.deb
  # Certificates are checked as outside.
  install -D --mode 0644 /etc/ssl/certs/ca-certificates.crt "$base/etc/ssl/certs/ca-certificates.crt"
  container=$(made from scratch)
  made copy --quiet "$container" "$base" /
  made commit --quiet --rm "$container" localhost/python
  rm -rf "$base"
fi

for target in "${@:-cpu}"; do
  made build --isolation chroot --format docker --build-arg PYTHON=localhost/python --target "$target" \
    --file deploy/containers/Containerfile --tag "localhost/headrace-$target" .
  made inspect --type image "localhost/headrace-$target" >"$folder/$target.json"
  rm -rf "${folder:?}/$target"
  made push --quiet "localhost/headrace-$target" "oci:$folder/$target"
  container=$(made from "localhost/headrace-$target")
  made mount "$container" >"$folder/$target.root"
  du --summarize --human-readable "$folder/$target"
done
