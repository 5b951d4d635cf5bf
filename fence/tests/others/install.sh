#!/bin/sh
# Installs what other people wrote and fence_smartplug is tested with, on Debian 12 as root, and prints
# the folder that has it. What is there already is not fetched again.
set -eu

here=$(cd "$(dirname "$0")" && pwd)

# Home Assistant of the versions that are listed runs on Python 3.11 alone.
missing=
python3.11 -I -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3.11-venv"
command -v node >/dev/null || missing="$missing nodejs"
command -v npm >/dev/null || missing="$missing npm"
command -v xmllint >/dev/null || missing="$missing libxml2-utils"
if [ -n "$missing" ]; then
    apt-get update -q >&2
    # shellcheck disable=SC2086 # several packages
    apt-get install -q -y --no-install-recommends $missing >&2
fi

# Another list, or another Python, is another folder; the old one may be in use.
key=$({
    cat "$here/install.sh" "$here/requirements.txt" "$here/package.json" "$here/package-lock.json"
    python3.11 -I -c 'import sys; print(sys.version, sys.prefix)'
} | sha256sum | cut -c 1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hasan-others
folder=$cache/$key
mkdir -p "$cache"

# One at a time. The lock ends with this program, however it ends.
exec 9>"$cache/lock"
flock 9
if [ -d "$folder" ]; then
    echo "$folder"
    exit
fi

# It gets its name when it is whole, so nobody ever finds half of it.
new=$cache/new
rm -rf "$new"
mkdir "$new"

# The lists are whole, and what they name fits together: nothing is left to be resolved.
python3.11 -I -m venv "$new/python" >&2
"$new/python/bin/python" -I -m pip install -q --disable-pip-version-check --no-deps \
    -r "$here/requirements.txt" >&2

# The fake devices of python-kasa and its recordings of real ones are in its source alone.
"$new/python/bin/python" -I -m pip download -q --disable-pip-version-check --no-deps \
    --no-binary python-kasa -d "$new" python-kasa==0.12.0 >&2
echo "92b0cd9eafc89a07a31e5652dd494a2eed0477fc1b0e517ba1b1a045d2cf3643  $new/python_kasa-0.12.0.tar.gz" |
    sha256sum -c --quiet >&2
mkdir "$new/python-kasa"
tar -xf "$new/python_kasa-0.12.0.tar.gz" -C "$new/python-kasa" --strip-components 1

cp "$here/package.json" "$here/package-lock.json" "$new"
(cd "$new" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)

# The schema of metadata lies in the package of all fence agents. To install that would bring the
# programs of a hundred devices; it is only unpacked.
mkdir "$new/fence-agents"
cd "$new/fence-agents"
apt-get download -q fence-agents >&2 || { apt-get update -q >&2 && apt-get download -q fence-agents >&2; }
dpkg-deb -x fence-agents_*.deb .
test -f usr/share/cluster/relaxng/metadata.rng

# Their own scenarios are in the source alone. apt knows a mirror; the lists of another release are kept apart.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Component: main' 'Created-By: Packages' |
    head -n 1)
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >sources.list
mkdir -p lists/partial
trixie() {
    apt-get -q -o Dir::Etc::SourceList="$PWD/sources.list" -o Dir::Etc::SourceParts=- \
        -o Dir::State::Lists="$PWD/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
        -o APT::Sandbox::User=root "$@" >&2
}
trixie update
trixie source --download-only --tar-only fence-agents
rm -r lists
echo "26be0c8f9e6f10ce4e17552f5e46ab200d6e647522eb502d77596820de13660c  fence-agents_4.16.0.orig.tar.gz" |
    sha256sum -c --quiet >&2
tar -xf fence-agents_4.16.0.orig.tar.gz --strip-components 1 fence-agents-4.16.0/tests

mv -T "$new" "$folder"
echo "$folder"
