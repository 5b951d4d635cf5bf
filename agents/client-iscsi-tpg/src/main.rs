//! `ocf:hasan:client-iscsi-tpg`: the door of one client VLAN, opened last and closed first.
#![forbid(unsafe_code)]

use hasan::lio::{self, Failure, Step, Tpg, TpgName};
use hasan::machine::Machine;
use hasan::names;
use hasan::ocf::{self, Action, Agent, Fault, Kind, Operation, Outcome, Param, Rc, Values};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

const IQN: Param = Param {
    name: "iqn",
    kind: Kind::Text(names::iqn),
    default: None,
    required: true,
    unique_group: Some("tpg"),
    reloadable: false,
    short: "Name of the target",
    long: "iSCSI name of the client target, the same on both nodes.",
};
const TPG: Param = Param {
    name: "tpg",
    kind: Kind::Integer(1, 65535),
    default: Some("1"),
    required: false,
    unique_group: Some("tpg"),
    reloadable: false,
    short: "Tag of the portal group",
    long: "Tag of the target portal group of this VLAN.",
};
const PORTALS: Param = Param {
    name: "portals",
    kind: Kind::Text(names::portals),
    default: None,
    required: true,
    unique_group: Some("portals"),
    reloadable: false,
    short: "Portals of the portal group",
    long: "Portals of the portal group, ADDRESS:PORT each, IPv6 addresses in square brackets. The \
           addresses must be on this node, as the VIP is that the group orders before this resource.",
};

static AGENT: Agent = Agent {
    name: "client-iscsi-tpg",
    short: "Opens an iSCSI portal group to its clients",
    long: "Makes the portals of a target portal group and enables it, when all LUNs are there; \
           closes it first when things move. The group itself, its LUNs and its initiators come \
           from sync-iscsi-luns.",
    params: &[&IQN, &TPG, &PORTALS],
    operations: &[
        Operation { name: "start", timeout: 60, interval: 0, depth: 0 },
        Operation { name: "stop", timeout: 60, interval: 0, depth: 0 },
        Operation { name: "monitor", timeout: 20, interval: 10, depth: 0 },
        Operation { name: "validate-all", timeout: 20, interval: 0, depth: 0 },
        Operation { name: "meta-data", timeout: 5, interval: 0, depth: 0 },
    ],
    run,
    explain: None,
};

fn main() -> ExitCode {
    ocf::main(&AGENT)
}

/// The door that is wanted.
struct Door {
    tpg: TpgName,
    portals: BTreeSet<String>,
}

impl Door {
    fn new(values: &Values) -> Result<Door, Fault> {
        Ok(Door {
            tpg: TpgName {
                iqn: values.required(&IQN)?.to_string(),
                tag: values.number(&TPG).unwrap_or(1),
            },
            portals: names::list(values.required(&PORTALS)?).into_iter().collect(),
        })
    }
}

fn run(machine: &Machine, action: Action, values: &Values) -> Outcome {
    // A stop or probe without its parameters, and without a record of a start, has opened nothing.
    let door = match Door::new(values) {
        Ok(door) => door,
        Err(_) if matches!(action, Action::Stop | Action::Monitor) => return Ok(Rc::NotRunning),
        Err(fault) => return Err(fault),
    };
    match action {
        Action::Start => start(machine, &door),
        Action::Stop => stop(machine, &door),
        Action::Monitor => state(&door, lio::tpg(machine, &door.tpg)?.as_ref(), &addresses()?),
        Action::ValidateAll | Action::ReloadAgent => Ok(Rc::Success),
    }
}

fn start(machine: &Machine, door: &Door) -> Outcome {
    if let Some(portal) = missing_address(door, &addresses()?) {
        return Err(Fault::generic(format!(
            "the address of the portal {portal} is not on this node: start the VIP first"
        )));
    }
    let _lock = lio::lock_targetcli(machine)?;
    let tpg = lio::tpg(machine, &door.tpg)?;
    let steps = lio::door_up(&door.tpg, &door.portals, tpg.as_ref()).ok_or_else(|| {
        Fault::generic(format!(
            "the target {} has no portal group {}: start sync-iscsi-luns first",
            door.tpg.iqn, door.tpg.tag
        ))
    })?;
    lio::apply_all(machine, &steps).map_err(|failure| name_taken_portal(*failure))?;
    state(door, lio::tpg(machine, &door.tpg)?.as_ref(), &addresses()?)
}

/// The kernel answers every mistake in a portal with EINVAL (`target_fabric_make_np`).
fn name_taken_portal(failure: Failure) -> Fault {
    match failure.step {
        Step::MakePortal(_, portal) => Fault::generic(format!(
            "cannot listen at {portal}: another portal group or program may have it ({})",
            failure.fault.reason
        )),
        _ => failure.fault,
    }
}

fn stop(machine: &Machine, door: &Door) -> Outcome {
    let _lock = lio::lock_targetcli(machine)?;
    let tpg = lio::tpg(machine, &door.tpg)?;
    lio::apply_all(machine, &lio::door_down(&door.tpg, tpg.as_ref()))?;
    match lio::tpg(machine, &door.tpg)? {
        Some(tpg) if tpg.enabled || !tpg.portals.is_empty() => Err(Fault::generic(format!(
            "the portal group {} of {} is still open",
            door.tpg.tag, door.tpg.iqn
        ))),
        _ => Ok(Rc::Success),
    }
}

fn state(door: &Door, tpg: Option<&Tpg>, addresses: &BTreeSet<IpAddr>) -> Outcome {
    let Some(tpg) = tpg else { return Ok(Rc::NotRunning) };
    if !tpg.enabled && tpg.portals.is_empty() {
        return Ok(Rc::NotRunning);
    }
    if !tpg.enabled {
        return Err(Fault::generic(format!(
            "the portal group {} of {} is disabled",
            door.tpg.tag, door.tpg.iqn
        )));
    }
    if let Some(portal) = door.portals.difference(&tpg.portals).next() {
        return Err(Fault::generic(format!("the portal {portal} is gone")));
    }
    match missing_address(door, addresses) {
        Some(portal) => {
            Err(Fault::generic(format!("the address of the portal {portal} is not on this node")))
        }
        None => Ok(Rc::Success),
    }
}

/// LIO listens at addresses that are not there (IP_FREEBIND), so it has to be looked at here.
fn missing_address<'a>(door: &'a Door, addresses: &BTreeSet<IpAddr>) -> Option<&'a String> {
    door.portals.iter().find(|portal| {
        portal.parse::<SocketAddr>().is_ok_and(|portal| !addresses.contains(&portal.ip()))
    })
}

fn addresses() -> Result<BTreeSet<IpAddr>, Fault> {
    let interfaces = nix::ifaddrs::getifaddrs()
        .map_err(|error| Fault::generic(format!("cannot list the addresses: {error}")))?;
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    Ok(interfaces.filter_map(address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_door() {
        let portal = "10.40.40.10:3260".to_string();
        let door = Door {
            tpg: TpgName { iqn: "iqn.2025-01.lab.home:x".to_string(), tag: 1 },
            portals: BTreeSet::from([portal.clone()]),
        };
        let here = BTreeSet::from(["10.40.40.10".parse().unwrap()]);
        let tpg = |enabled, portals| Tpg { enabled, portals, ..Tpg::default() };
        let with = BTreeSet::from([portal]);
        let rc = |tpg: Option<&Tpg>, addresses| match state(&door, tpg, addresses) {
            Ok(rc) => rc,
            Err(fault) => fault.rc,
        };
        for (tpg, addresses, want) in [
            (None, &here, Rc::NotRunning),
            (Some(tpg(false, BTreeSet::new())), &here, Rc::NotRunning),
            (Some(tpg(false, with.clone())), &here, Rc::Generic),
            (Some(tpg(true, BTreeSet::new())), &here, Rc::Generic),
            (Some(tpg(true, with.clone())), &BTreeSet::new(), Rc::Generic),
            (Some(tpg(true, with)), &here, Rc::Success),
        ] {
            assert_eq!(rc(tpg.as_ref(), addresses), want, "{tpg:?}");
        }
    }
}

#[cfg(test)]
mod golden {
    /// What pcs and Pacemaker read changes only on purpose: `client-iscsi-tpg meta-data > metadata.xml`.
    #[test]
    fn the_metadata_is_as_recorded() {
        assert_eq!(hasan::ocf::metadata(&super::AGENT), include_str!("../metadata.xml"));
    }
}
