#!/bin/bash
# one_node.sh: Corosync and Pacemaker on a cluster of one node, for as long as this runs. It takes the resources of
# /conformance/resources.xml, whose agents are ours and /conformance/says, and leaves in /conformance what became of them: calls, status.xml,
# status.txt, left.
set -euo pipefail
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/hasan /etc/hasan /usr/lib/ocf/resource.d/others
install -m 755 /conformance/says /usr/lib/ocf/resource.d/others/says
cp /conformance/backend.conf /etc/hasan/backend.conf
hostname node1
echo "127.0.0.1 node1" > /etc/hosts
rm -f /conformance/calls /conformance/left

cat > /etc/corosync/corosync.conf <<'CONF'
totem {
    version: 2
    cluster_name: one
    transport: knet
    crypto_cipher: none
    crypto_hash: none
}
nodelist {
    node {
        ring0_addr: 127.0.0.1
        name: node1
        nodeid: 1
    }
}
quorum {
    provider: corosync_votequorum
}
logging {
    to_syslog: no
    to_logfile: yes
    logfile: /conformance/corosync.log
}
CONF

# until_so SECONDS COMMAND: runs it until it succeeds.
until_so() {
    local end=$((SECONDS + $1))
    until "${@:2}" > /conformance/last 2>&1; do
        if [ $SECONDS -ge $end ]; then
            echo "not within $1 s: ${*:2}: $(tail -n 5 /conformance/last)"
            exit 1
        fi
        sleep 0.2
    done
}
is_online() { crm_mon --one-shot --output-as=xml | grep -q '<node name="node1" id="1" online="true"'; }
has_dc() { crmadmin --dc_lookup | grep -q node1; }
# `crm_resource --wait` of 3.0 waits for ever beside a resource that is blocked.
is_idle() { crmadmin --status node1 | grep -q S_IDLE; }
has_failed() { crm_mon --one-shot --output-as=xml | grep -q "<failure op_key=\"$1\""; }
called() { [ "$(grep -cx "$1" /conformance/calls)" -ge "$2" ]; }

corosync -f > /conformance/corosync.out 2>&1 &
until_so 20 corosync-cfgtool -s
cibadmin --empty > /var/lib/pacemaker/cib/cib.xml
CIB_file=/var/lib/pacemaker/cib/cib.xml crm_attribute --name dc-deadtime --update 2s
CIB_file=/var/lib/pacemaker/cib/cib.xml crm_attribute --name stonith-enabled --update false
chown hacluster:haclient /var/lib/pacemaker/cib/*
PCMK_logfile=/conformance/pacemaker.log pacemakerd > /conformance/pacemakerd.out 2>&1 &
until_so 30 is_online
until_so 30 has_dc

# The watch daemon is there, as far as its lock says, and finds no leg.
exec 9> /run/hasan/backend-watch.lock
flock 9
cibadmin --replace --scope resources --xml-file /conformance/resources.xml
# The last thing to happen, and a resource whose monitors are as old as the others'.
until_so 60 called "monitor-999 stop" 2
until_so 30 called "steady monitor" 5
until_so 30 called "steady monitor10" 1
until_so 30 has_failed health_monitor_1000
until_so 30 is_idle
crm_resource --resource steady --set-parameter word --parameter-value other > /dev/null
until_so 30 called "steady reload-agent" 1
# The monitors are begun anew.
until_so 30 grep -qx OCF_RESKEY_word=other /conformance/environment.steady.monitor10
until_so 30 is_idle
crm_mon --one-shot --inactive --output-as=xml > /conformance/status.xml
pcs status --full > /conformance/status.txt 2>&1
pgrep -f "sleep 424[2]" > /conformance/left || true
