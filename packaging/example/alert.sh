#!/bin/sh
# An alert agent for Pacemaker: mails what an administrator of a hasan cluster wants to know at once, and logs it.
#
#   pcs alert create path=/usr/share/doc/hasan/alert.sh id=hasan-alert
#   pcs alert recipient add hasan-alert value=root
#
# Node attributes are not among what Pacemaker tells alert agents by default. This asks for all kinds:
#
#   cibadmin --modify --scope alerts --xml-text '<alerts><alert id="hasan-alert"><select>
#       <select_fencing/><select_nodes/><select_resources/><select_attributes/></select></alert></alerts>'
#
# It mails by mail(1) (Debian: bsd-mailx), which each node needs, where there is a recipient.
#
# Pacemaker runs it as the user hacluster: for what happens on a node there, for an attribute on one of the members, with all
# nodes' values of it. So all three nodes need it.
set -eu

case $CRM_alert_kind in
    fencing | node)
        text="$CRM_alert_node: $CRM_alert_desc" ;;
    attribute)
        case $CRM_alert_attribute_name in
            hasan-legs-missing) text="$CRM_alert_node: ${CRM_alert_attribute_value:-?} legs of the other node are missing" ;;
            hasan-resilvered-*) text="$CRM_alert_node: resilver of ${CRM_alert_attribute_name#hasan-resilvered-}: ${CRM_alert_attribute_value:-ended} %" ;;
            *) exit 0 ;;
        esac ;;
    resource)
        # A monitor's 190 is a pool or a node that is degraded; a failed probe is a resource that is not there.
        [ "$CRM_alert_rc" != 0 ] && [ "$CRM_alert_task/$CRM_alert_interval" != monitor/0 ] || exit 0
        text="$CRM_alert_node: $CRM_alert_rsc $CRM_alert_task: $CRM_alert_desc" ;;
    *)
        exit 0 ;;
esac

logger -t hasan-alert "$text"
[ -z "${CRM_alert_recipient:-}" ] || echo "$text" | mail -s "hasan on $CRM_alert_node" "$CRM_alert_recipient"
