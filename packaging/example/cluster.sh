#!/bin/bash
# Makes the whole cluster with pcs. It is there for that once: later changes, another VLAN for instance, are made by pcs.
#
#   cluster.sh [VARIABLES]     run once, as root, on any of the three nodes
#
# What it needs: hasan, Pacemaker, pcs and resource-agents on all three nodes, pcsd running, one password of the user
# hacluster, and the files with the passwords of the fence devices. On the two storage nodes ZFS, /etc/hasan/backend.conf
# and the hasan-backend units running; the pool created, with a dataset for each VLAN, and exported. The quorum node has no ZFS.
#
# On Debian and Ubuntu corosync comes with a sample cluster of a "node1", which runs, and which pcs takes for a real one, by its
# configuration and by what Pacemaker keeps: pcs cluster destroy, on each node, first.
#
# Fill in the block below, or put the lines that differ into a file and name it. The lab runs this very script.
set -euo pipefail

# ---- fill in --------------------------------------------------------------------------------------------------------
CLUSTER=san-cluster
NODE_A=storage-a                              # names, as the nodes call themselves
NODE_B=storage-b
QUORUM=quorum-c                               # not "quorum": pcs takes that word for a keyword
LINK0_A=10.20.20.1                            # cluster network (knet link 0): one address for each of the three
LINK0_B=10.20.20.2
LINK0_Q=10.20.20.3
HACLUSTER_PASSWORD_FILE=/root/.hacluster      # on this node: the password of the user hacluster, the same on all nodes
TOKEN=4000                                    # milliseconds until a silent node counts as lost
STONITH_TIMEOUT=60s

CLUSTER_EXISTS=no                             # yes: the nodes are a cluster already, make its resources only

POOL=san-pool
POOL_WAS_ON=                                  # where it was created and exported: its data is the newest (empty: NODE_A)
TARGET=iqn.2025-01.lab.home:hypervisor        # the client target, the same on both nodes
# One line for each client VLAN: name, portal group tag, dataset, VIP, prefix length, interface, initiators, further
# parameters of sync-iscsi-luns (such as chap_file=/etc/hasan/chap-NAME.json, names=proxmox).
# Initiators: iSCSI names separated by commas, or "any" for generate_node_acls (Proxmox ZFS over iSCSI).
#   VLANS=("hypervisor 1 san-pool/iscsi/hypervisor 10.40.40.10 24 hyp any"
#       "end 2 san-pool/iscsi/end 10.30.30.10 24 end iqn.2025-01.lab.home:one,iqn.2025-01.lab.home:two vlan=end")
VLANS=()                                      # empty: the first of these lines, in POOL

# The fence device of each node. It must be able to cut the power of that node without its help. The quorum node needs one,
# too: while a node is lost that nobody can fence, Pacemaker starts nothing on any node, so that no pool could move. With a
# smart plug (fence_smartplug.md), for each node:
#   P stonith create "fence-$NODE_A" fence_smartplug type=… ip=… plug=… password_file=… pcmk_host_list="$NODE_A" \
#       op start timeout=60s op monitor interval=60s timeout=60s
#   P constraint location "fence-$NODE_A" avoids "$NODE_A"
make_stonith() {
    echo "fill in make_stonith: one fence device for each node" >&2
    return 1
}
# Seconds for operations; slow machines need more.
START_TIMEOUT=180s
STOP_TIMEOUT=120s
SMALL_TIMEOUT=60s
MONITOR_INTERVAL=10s
MONITOR_TIMEOUT=30s
REQUEST_TIMEOUT=60                            # for pcs, when it speaks to the other nodes
# ---------------------------------------------------------------------------------------------------------------------

[ $# -eq 0 ] || . "$1"

# Only now the names are known that these are made of.
: "${POOL_WAS_ON:=$NODE_A}"
[ "${#VLANS[@]}" -gt 0 ] || VLANS=("hypervisor 1 $POOL/iscsi/hypervisor 10.40.40.10 24 hyp any")

for node in "$NODE_A" "$NODE_B" "$QUORUM"; do
    case $node in
        quorum | totem | transport)
            echo "a node cannot be called \"$node\": pcs cluster setup takes that word for a keyword" >&2
            exit 1 ;;
    esac
done

if [ "$CLUSTER_EXISTS" = no ] && { [ -e /etc/corosync/corosync.conf ] || [ -e /var/lib/pacemaker/cib/cib.xml ]; }; then
    echo "this node is in a cluster already: if that is the distribution's sample, pcs cluster destroy on each node; if it is" \
        "this one, go on with CLUSTER_EXISTS=yes" >&2
    exit 1
fi

# One change of the CIB for all resources, so that nothing starts half configured.
CIB=$(mktemp)
trap 'rm -f "$CIB" "$CIB.old"' EXIT
P() { pcs -f "$CIB" "$@"; }

make_cluster() {
    # pcs reads the password from its standard input: a command line is seen by everyone.
    local pcs="pcs --request-timeout=$REQUEST_TIMEOUT"
    $pcs host auth "$NODE_A" addr="$LINK0_A" "$NODE_B" addr="$LINK0_B" "$QUORUM" addr="$LINK0_Q" \
        -u hacluster <"$HACLUSTER_PASSWORD_FILE"
    $pcs cluster setup "$CLUSTER" "$NODE_A" addr="$LINK0_A" "$NODE_B" addr="$LINK0_B" "$QUORUM" addr="$LINK0_Q" \
        totem token="$TOKEN"
    $pcs cluster enable --all
    $pcs cluster start --all --wait=300
}

make_resources() {
    local op_small="op start timeout=$SMALL_TIMEOUT op stop timeout=$SMALL_TIMEOUT"
    local op_monitor="op monitor interval=$MONITOR_INTERVAL timeout=$MONITOR_TIMEOUT"

    P property set stonith-enabled=true stonith-timeout="$STONITH_TIMEOUT" no-quorum-policy=stop
    # A refusal is tried again when things have healed; nothing moves back by itself. What a probe finds left on the other node is
    # stopped there alone (Pacemaker 2.1.3; older ones stop both).
    P resource defaults update resource-stickiness=200 failure-timeout=120s migration-threshold=3 \
        multiple-active=stop_unexpected
    make_stonith

    P resource create zfs-pool ocf:hasan:zfs-pool pool="$POOL" \
        op start timeout="$START_TIMEOUT" op stop timeout="$STOP_TIMEOUT" $op_monitor \
        op monitor interval=61s timeout="$STOP_TIMEOUT" OCF_CHECK_LEVEL=10

    local name tag dataset vip prefix interface initiators more access
    for vlan in "${VLANS[@]}"; do
        read -r name tag dataset vip prefix interface initiators more <<<"$vlan"
        access="initiators=$initiators"
        [ "$initiators" != any ] || access=generate_node_acls=true
        # LUNs behind a closed door, the address, the door: no initiator ever sees a LUN missing.
        P resource create "luns-$name" ocf:hasan:sync-iscsi-luns iqn="$TARGET" tpg="$tag" dataset="$dataset" \
            "$access" $more op start timeout="$START_TIMEOUT" op stop timeout="$STOP_TIMEOUT" $op_monitor \
            op monitor interval=60s timeout="$STOP_TIMEOUT" OCF_CHECK_LEVEL=10
        P resource create "vip-$name" ocf:heartbeat:IPaddr2 ip="$vip" cidr_netmask="$prefix" nic="$interface" \
            $op_small $op_monitor
        P resource create "door-$name" ocf:hasan:client-iscsi-tpg iqn="$TARGET" tpg="$tag" portals="$vip:3260" \
            $op_small $op_monitor
        P resource group add "vlan-$name" "luns-$name" "vip-$name" "door-$name"
        P constraint colocation add "vlan-$name" with zfs-pool
        P constraint order zfs-pool then "vlan-$name"
        never_on_quorum "vlan-$name"
    done
    never_on_quorum zfs-pool
    # From now on the agent keeps this record itself. It refuses to import a pool that nobody is known to have had.
    CIB_file="$CIB" crm_attribute --type crm_config --name "hasan-owner-$POOL" --update "$POOL_WAS_ON"

    # Reports only; nothing is ordered or colocated with them.
    local agent
    for agent in export health; do
        P resource create "backend-$agent" "ocf:hasan:iscsi-backend-$agent" \
            op monitor interval=30s timeout="$MONITOR_TIMEOUT" clone interleave=true
        never_on_quorum "backend-$agent-clone"
    done
}

warn_of_unfenced() {
    local node
    for node in "$NODE_A" "$NODE_B" "$QUORUM"; do
        grep -qE "name=\"pcmk_host_(list|map)\" value=\"[^\"]*$node" "$CIB" ||
            echo "Warning: no fence device has $node in pcmk_host_list: while $node is lost, nothing starts anywhere" >&2
    done
}

# Not even a probe: the quorum node has neither ZFS nor a target.
never_on_quorum() {
    P constraint location add "never-$1" "$1" "$QUORUM" -INFINITY resource-discovery=never
}

if [ "$CLUSTER_EXISTS" = no ]; then
    # What is wrong in the block above shows before anything is made.
    cibadmin --empty >"$CIB"
    make_resources 2>&1 | sed 's/^/trying: /'
    make_cluster
fi
pcs cluster cib "$CIB"
cp "$CIB" "$CIB.old"
make_resources
warn_of_unfenced
pcs cluster cib-push "$CIB" diff-against="$CIB.old"
echo "made: watch it with  pcs status"
