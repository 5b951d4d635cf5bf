#!/bin/bash
# cts.sh RELEASE MIRROR FOLDER: Pacemaker's own cluster test (CTS), out of the source of the release's package, in FOLDER: a
# program `run`. Nothing of it is in the packages. The lab runs this script and keeps what it makes, as it does images.
set -euo pipefail
release=$1 mirror=$2 folder=$3
cd "$folder"

echo "== source"
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main" > sources.list
mkdir -p lists/partial source
fetch() {
    apt-get -q -o Dir::Etc::SourceList="$PWD/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$PWD/lists" \
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root "$@"
}
fetch update
fetch source --download-only --tar-only pacemaker
tar -xf pacemaker_*.orig.tar.* --strip-components 1 -C source
rm -r lists pacemaker_*

# What the build of the package would put in.
filled() {
    sed -e 's|@PYTHON@|/usr/bin/python3|; s|@BASH_PATH@|/bin/bash|; s|@datadir@|/usr/share|; s|@PACKAGE@|pacemaker|' \
        -e 's|@CRM_CONFIG_DIR@|/var/lib/pacemaker/cib|; s|@CRM_LOG_DIR@|/var/log/pacemaker|; s|@CRM_DAEMON_USER@|hacluster|' \
        -e "s|@CRM_DAEMON_DIR@|$daemons|; s|@OCF_ROOT_DIR@\|@PCMK_OCF_ROOT@|/usr/lib/ocf|; s|@CIB_VERSION@|4.0|" \
        -e 's|@PCMK__COROSYNC_CONF@|/etc/corosync/corosync.conf|' "$1"
}
# It waits for lines of logs. The machines are emulated: what it gives a second gets five.
patient() { sed -i 's/^\( *self\._\?[tT]imeout = int(timeout)\)$/\1 * 5/' "$1" && grep -q 'int(timeout) \* 5' "$1"; }

echo "== program"
if [ -d source/cts/lab ]; then
    daemons=/usr/lib/pacemaker
    mkdir cts
    cp source/cts/lab/*.py cts/
    filled source/cts/lab/CTSvars.py.in > cts/CTSvars.py
    filled source/cts/lab/CTSlab.py.in > cts/CTSlab.py
    patient cts/watcher.py
    program='cts/CTSlab.py --set LogWatcher=journal --set LogAuditDisabled=1'
    choice='choice=(); for test in "$@"; do choice+=(--choose "$test"); done'
else
    daemons=/usr/libexec/pacemaker
    cp -r source/python/pacemaker .
    filled source/python/pacemaker/buildoptions.py.in > pacemaker/buildoptions.py
    filled source/cts/cts-lab.in > cts-lab
    patient pacemaker/_cts/watcher.py
    # It takes --seed and does not use it (up to 3.0.0 at least).
    sed -i 's/seed = int(time.time())/seed = sys.argv[sys.argv.index("--seed") + 1]/' pacemaker/_cts/environment.py
    grep -q 'seed = sys.argv' pacemaker/_cts/environment.py
    # The one thing that it asks Pacemaker's library for is the text of an exit code.
    printf 'class _libcrmcommon:\n    @staticmethod\n    def crm_exit_str(code):\n        return b""\n' > pacemaker/_library.py
    program='cts-lab --logfile journal'
    choice='choice=(--choose "$*")'
fi
rm -r source

# run KEY SOCKETS LOG SEED TEST...: the tests, by ssh with this key (and the lab's open connections, where there are some),
# from a machine that knows the members by name.
mkdir bin
for name in ssh scp; do
    cat > bin/$name <<WRAPPER
#!/bin/sh
exec /usr/bin/$name -q -i "\$CTS_KEY" -o ControlPath="\$CTS_SOCKETS/ssh-%n" -o StrictHostKeyChecking=no \
    -o UserKnownHostsFile=/dev/null "\$@"
WRAPPER
    chmod 755 bin/$name
done
cat > hosts <<'HOSTS'
127.0.0.1 localhost
10.20.20.1 storage-a
10.20.20.2 storage-b
10.20.20.3 quorum-c
10.20.20.254 exerciser
HOSTS
cat > run <<RUN
#!/bin/bash
set -euo pipefail
cd "\$(dirname "\$0")"
export CTS_KEY=\$1 CTS_SOCKETS=\$2 PATH=\$PWD/bin:\$PATH PYTHONPATH=\$PWD
log=\$3 seed=\$4
shift 4
$choice
exec unshare --mount --uts bash -c 'hostname exerciser; mount --bind hosts /etc/hosts; exec python3 "\$@"' run \\
    $program --nodes "storage-a storage-b quorum-c" --at-boot 1 --seed "\$seed" --outputfile "\$log" \\
    "\${choice[@]}" \$#
RUN
chmod 755 run
