# cluster.sh, to be read in: Corosync and Pacemaker on a cluster of one node, for as long as the reader runs.
mount -t tmpfs tmpfs /run
mkdir -p /run/lock
hostname node1
echo "127.0.0.1 node1" > /etc/hosts

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

corosync -f > /conformance/corosync.out 2>&1 &
until_so 300 corosync-cfgtool -s
cibadmin --empty > /var/lib/pacemaker/cib/cib.xml
CIB_file=/var/lib/pacemaker/cib/cib.xml crm_attribute --name dc-deadtime --update 2s
CIB_file=/var/lib/pacemaker/cib/cib.xml crm_attribute --name stonith-enabled --update false
chown hacluster:haclient /var/lib/pacemaker/cib/*
PCMK_logfile=/conformance/pacemaker.log pacemakerd > /conformance/pacemakerd.out 2>&1 &
until_so 300 is_online
until_so 300 has_dc
