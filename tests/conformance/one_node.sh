#!/bin/bash
# one_node.sh: Pacemaker on a cluster of one node. It takes the resources of /conformance/resources.xml, whose agents are
# ours and /conformance/says, and leaves in /conformance what became of them: calls, status.xml, status.txt, left.
set -euo pipefail
install -D -m 755 /conformance/says /usr/lib/ocf/resource.d/others/says
install -D /conformance/backend.conf /etc/hasan/backend.conf
rm -f /conformance/calls /conformance/left
. /conformance/cluster.sh
mkdir /run/hasan

has_failed() { crm_mon --one-shot --output-as=xml | grep -q "<failure op_key=\"$1\""; }
called() { [ "$(grep -cx "$1" /conformance/calls)" -ge "$2" ]; }
# `crm_resource --wait` of 3.0 waits for ever beside a resource that is blocked.
is_idle() { crmadmin --status node1 | grep -q S_IDLE; }

# The watch daemon is there, as far as its lock says, and finds no leg.
exec 9> /run/hasan/backend-watch.lock
flock 9
cibadmin --replace --scope resources --xml-file /conformance/resources.xml
# The last thing to happen, and a resource whose monitors are as old as the others'.
until_so 300 called "monitor-999 stop" 2
until_so 300 called "steady monitor" 5
until_so 300 called "steady monitor10" 1
until_so 300 has_failed health_monitor_1000
until_so 300 is_idle
crm_resource --resource steady --set-parameter word --parameter-value other > /dev/null
until_so 300 called "steady reload-agent" 1
# The monitors are begun anew.
until_so 300 grep -qx OCF_RESKEY_word=other /conformance/environment.steady.monitor10
until_so 300 is_idle
crm_mon --one-shot --inactive --output-as=xml > /conformance/status.xml
pcs status --full > /conformance/status.txt 2>&1
pgrep -f "sleep 424[2]" > /conformance/left || true
