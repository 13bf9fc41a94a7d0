#!/usr/bin/env bash
# Make the image `cpu` of the Containerfile as an OCI layout where there is neither an engine nor a base image: by
# debootstrap and umoci, both of Debian (apt install debootstrap umoci), as root, on Debian 12.
#
#     unshare --mount --propagation private deploy/containers/without_engine.sh FOLDER
#
# The image is FOLDER/image:headrace; FOLDER/check has it unpacked, to start it by chroot --userspec=10001:10001.
# What differs from the Containerfile: the base is Debian's own Python 3.11, and OCI knows no health check, for which
# Kubernetes has its probes.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(realpath --canonicalize-missing "${1:?give a folder for what is made}")
root=$folder/rootfs
mkdir -p "$folder"

if [ ! -x "$root/usr/bin/python3" ]; then
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root"
fi
inside() { chroot "$root" /usr/bin/env -i PATH=/opt/headrace/bin:/usr/bin:/bin:/usr/sbin:/sbin PIP_NO_CACHE_DIR=1 \
  PIP_DISABLE_PIP_VERSION_CHECK=1 "$@"; }

# Names are resolved and certificates checked as outside, while it is made.
install -D --mode 0644 /etc/resolv.conf "$root/etc/resolv.conf"
install -D --mode 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir -p "$root/src"
tar --create --exclude-vcs pyproject.toml README.md LICENSE schemas services deploy/containers | tar --extract --directory "$root/src"

inside python3 -m venv /tmp/build
inside /tmp/build/bin/pip install --quiet --require-hashes --only-binary :all: --requirement /src/deploy/containers/build.lock
inside python3 -m venv /opt/headrace
inside /opt/headrace/bin/pip install --quiet --require-hashes --only-binary :all: \
  --requirement /src/deploy/containers/requirements.lock
inside sh -c 'cd /src && /tmp/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /tmp/wheels .'
inside sh -c '/opt/headrace/bin/pip install --quiet --no-deps --no-index /tmp/wheels/*.whl'
inside sh -c 'id headrace 2>/dev/null || useradd --system --uid 10001 --user-group --no-create-home headrace'
inside install --directory --owner headrace --group headrace /var/cache/headrace /store
chroot --userspec=10001:10001 "$root" /usr/bin/env -i PATH=/opt/headrace/bin:/usr/bin:/bin \
  NUMBA_CACHE_DIR=/var/cache/headrace python /src/deploy/containers/warm.py
umount --recursive "$root/dev" "$root/proc"
rm -rf "$root/src" "$root/tmp/"* "$root/var/cache/apt/archives/"*.deb "$root/var/lib/apt/lists/"* "$root/etc/resolv.conf"

rm -rf "$folder/image" "$folder/bundle" "$folder/check"
umoci init --layout "$folder/image"
umoci new --image "$folder/image:headrace"
umoci unpack --image "$folder/image:headrace" "$folder/bundle"
cp --archive --reflink=auto "$root/." "$folder/bundle/rootfs/"
umoci repack --image "$folder/image:headrace" "$folder/bundle"
umoci config --image "$folder/image:headrace" --config.user 10001 --config.entrypoint headrace --config.cmd worker \
  --config.exposedports 9464 --config.exposedports 8080 \
  --config.env PATH=/opt/headrace/bin:/usr/bin:/bin --config.env NUMBA_CACHE_DIR=/var/cache/headrace \
  --config.env HEADRACE_ADMIN__HOST=0.0.0.0 --config.env HEADRACE_ADMIN__PORT=9464 --config.env HEADRACE_LOG__FORMAT=json
rm -rf "$folder/bundle"
umoci unpack --image "$folder/image:headrace" "$folder/check"
du --summarize --human-readable "$folder/image"
