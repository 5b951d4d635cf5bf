#!/bin/bash
# root.sh RELEASE MIRROR FOLDER: makes a root file system of a Debian release, FOLDER/root, with the tools that other people
# wrote for agents. No kernel, and nothing in it is ever started as a service. The tests run it and keep what it makes under
# a digest of this very file.
set -euo pipefail
release=$1 mirror=$2 folder=$3
cd "$folder"

packages=(
    pacemaker pacemaker-cli-utils corosync pcs crmsh resource-agents
    libxml2-utils xsltproc docbook-xsl man-db groff iproute2 procps
)
mmdebstrap --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" "$release" root "$mirror"

# Schema and style sheet of fence agents come with the programs of a hundred devices: they are only unpacked.
cd root/tmp
chroot .. bash -c 'cd /tmp && apt-get update -q && apt-get download -q fence-agents-common || apt-get download -q fence-agents'
for package in fence-agents*.deb; do dpkg-deb -x "$package" ..; done
rm -f -- *.deb

# The style sheet of resource agents' manual pages is in the source of their package alone. It has not changed for years: that
# of Debian 13 serves both.
echo "deb-src $mirror trixie main" > ../etc/apt/sources.list.d/source.list
chroot .. bash -c 'cd /tmp && apt-get update -q && apt-get source -q --download-only --tar-only resource-agents'
tar -xf resource-agents_*.orig.tar.* --wildcards --strip-components 3 '*/doc/man/ra2refentry.xsl'
mv ra2refentry.xsl ../usr/share/resource-agents/
rm -f -- resource-agents_* ../etc/apt/sources.list.d/source.list
rm -rf ../var/cache/apt ../var/lib/apt/lists
