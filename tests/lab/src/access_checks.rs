//! Who gets in to the LUNs, and who does not: with a real initiator, in both modes.

use crate::machine::Machine;
use crate::pool_checks::{Hand, by_hand};
use crate::state::Lab;
use crate::{ssh, timers};
use anyhow::{Result, ensure};

const IQN: &str = "iqn.2025-01.lab.home:vault";
const PORTAL: &str = "10.40.40.10:3261";
/// The same door over IPv6.
const PORTAL_6: &str = "[fd00:40::10]:3261";
const FRIEND: &str = "iqn.2025-01.lab.home:initiator-friend";
const STRANGER: &str = "iqn.2025-01.lab.home:initiator-stranger";
/// On the list, without a password.
const BARE: &str = "iqn.2025-01.lab.home:initiator-bare";
const SECRETS: &str = "/root/chap.json";
const ACLS: &str = "/root/acls.conf";
/// Passwords that are searched for afterwards, wherever they must not be.
const OLD: &str = "canary-old-pass";
const NEW: &str = "canary-new-pass";

/// iscsiadm(8): "login failed due to authorization failure".
const REFUSED: i32 = 24;

struct Vault<'a> {
    here: Hand<'a>,
    client: &'static Machine,
    lab: &'a Lab,
}

impl Vault<'_> {
    /// Runs an action of the LUNs or of the door.
    fn act(&self, agent: &str, more: &str, action: &str) -> Result<String> {
        let environment = match agent {
            "client-iscsi-tpg" => {
                format!("OCF_RESKEY_iqn={IQN} OCF_RESKEY_portals='{PORTAL} {PORTAL_6}'")
            }
            _ => format!("OCF_RESKEY_iqn={IQN} OCF_RESKEY_dataset=san-pool/vault {more}"),
        };
        let said = self.here.act(agent, &environment, action)?;
        Ok(format!("{} {}", said.code, said.text))
    }

    fn up(&self, more: &str) -> Result<()> {
        ensure!(self.act("sync-iscsi-luns", more, "start")? == "0 ", "the LUNs");
        ensure!(self.act("client-iscsi-tpg", "", "start")? == "0 ", "the door");
        Ok(())
    }

    /// The same group is reached over IPv6, too.
    fn login_over_ipv6(&self, password: &str) -> Result<()> {
        let node = format!("iscsiadm -m node -T {IQN} -p {PORTAL_6}");
        let script = format!(
            "set -e; {node} -o new > /dev/null
             {}
             {node} --login; iscsiadm -m session | grep -F '{PORTAL_6},'; {node} --logout; {node} -o delete",
            set_password(&node, "lab", password)
        );
        println!("{}", ssh::run(self.lab, self.client, &script)?.trim_end());
        Ok(())
    }

    fn down(&self) -> Result<()> {
        ensure!(self.act("client-iscsi-tpg", "", "stop")? == "0 ", "the door");
        ensure!(
            self.act("sync-iscsi-luns", "OCF_RESKEY_generate_node_acls=1", "stop")? == "0 ",
            "the LUNs"
        );
        Ok(())
    }

    /// Logs in as an initiator with a password or without, and out again; returns what iscsiadm answered.
    fn login(&self, initiator: &str, password: Option<&str>) -> Result<i32> {
        self.node(
            initiator,
            password,
            "--login || code=$?; iscsiadm $node --logout > /dev/null 2>&1",
        )
    }

    /// The same, and stays.
    fn node(&self, initiator: &str, password: Option<&str>, verb: &str) -> Result<i32> {
        let name = initiator.rsplit('-').next().unwrap_or_default();
        let set = match password {
            Some(password) => set_password("iscsiadm $node", "lab", password),
            None => String::new(),
        };
        let script = format!(
            "iscsiadm -m iface -I {name} -o new > /dev/null 2>&1
             iscsiadm -m iface -I {name} -o update -n iface.initiatorname -v {initiator} > /dev/null
             node='-m node -T {IQN} -p {PORTAL} -I {name}'
             iscsiadm $node -o delete > /dev/null 2>&1
             iscsiadm $node -o new > /dev/null
             iscsiadm $node -o update -n node.session.initial_login_retry_max -v 1
             {set}
             code=0; iscsiadm $node {verb}
             echo code $code"
        );
        let said =
            ssh::within(self.lab, self.client, timers::PCS, &format!("{{ {script}; }} 2>&1"))?;
        let code = said.trim().rsplit(' ').next().unwrap_or_default().parse()?;
        println!("{initiator} with {}: {code}", password.unwrap_or("no password"));
        Ok(code)
    }

    fn secrets(&self, text: &str, mode: &str) -> Result<()> {
        self.here.run(&format!("echo '{text}' > {SECRETS} && chmod {mode} {SECRETS}")).map(|_| ())
    }
}

/// The lines of a script that give a record of open-iscsi (`iscsiadm -m node …`) a name and a password.
pub(crate) fn set_password(record: &str, user: &str, password: &str) -> String {
    format!(
        "for pair in authmethod=CHAP username={user} password={password}; do
             {record} -o update -n node.session.auth.${{pair%%=*}} -v ${{pair#*=}}
         done"
    )
}

/// CHAP in both modes: the right password in; a wrong one, none, and strangers out. Rotation, and files that are wrong.
pub(crate) fn chap(lab: &Lab) -> Result<()> {
    let (here, _) = by_hand(lab)?;
    let vault = Vault { here, client: Machine::named("client")?, lab };
    for (node, host) in [(vault.here.node, "10"), (vault.client, "4")] {
        ssh::run(lab, node, &format!("ip addr add fd00:40::{host}/64 dev hyp nodad"))?;
    }
    vault.here.run("zfs create -p san-pool/vault && zfs create -s -V 32M san-pool/vault/v && udevadm settle -t 60")?;

    let everyone = format!("OCF_RESKEY_generate_node_acls=1 OCF_RESKEY_chap_file={SECRETS}");
    vault.secrets(&format!(r#"{{"user": "lab", "password": "{OLD}"}}"#), "644")?;
    let open = vault.act("sync-iscsi-luns", &everyone, "start")?;
    ensure!(open.starts_with("2 ") && open.contains(SECRETS), "secrets that all can read: {open}");
    vault.secrets(&format!(r#"{{"user": "lab", "password": "{OLD}"}}"#), "600")?;
    vault.up(&everyone)?;
    for (password, want) in [(None, REFUSED), (Some("wrong-password"), REFUSED), (Some(OLD), 0)] {
        ensure!(vault.login(STRANGER, password)? == want, "everyone, with {password:?}");
    }

    vault.login_over_ipv6(OLD)?;

    // The password changes while a session lives.
    ensure!(vault.node(FRIEND, Some(OLD), "--login || code=$?")? == 0, "the friend");
    vault.secrets(&format!(r#"{{"user": "lab", "password": "{NEW}"}}"#), "600")?;
    ensure!(vault.act("sync-iscsi-luns", &everyone, "reload-agent")? == "0 ", "a reload");
    for (password, want) in [(OLD, REFUSED), (NEW, 0)] {
        ensure!(
            vault.login(STRANGER, Some(password))? == want,
            "after the change, with {password}"
        );
    }
    let sessions = format!("iscsiadm -m session | grep -c {IQN}");
    ensure!(ssh::run(lab, vault.client, &sessions)?.trim() == "1", "the friend's session is gone");
    // A file that cannot be read any more changes nothing, and is reported.
    vault.secrets("{", "600")?;
    let sync = format!("{everyone} OCF_CHECK_LEVEL=10");
    let said = vault.act("sync-iscsi-luns", &sync, "monitor")?;
    ensure!(said.starts_with("190 ") && said.contains(SECRETS), "a broken file: {said}");
    ensure!(vault.login(STRANGER, Some(NEW))? == 0, "after a broken file");
    ssh::run(lab, vault.client, &format!("iscsiadm -m node -T {IQN} -I friend --logout"))?;
    vault.down()?;

    listed(&vault)?;
    legs(lab)?;
    nowhere(&vault)?;
    filter(&vault)
}

/// An address is answered at every interface, until the example's packet filter is loaded.
fn filter(vault: &Vault<'_>) -> Result<()> {
    let reaches = |network: &str| -> Result<bool> {
        let script = format!(
            "python3 -c 'import socket
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b\"{network}\")
s.settimeout(10)
s.connect((\"10.40.40.10\", 3260))' 2>/dev/null && echo reached || echo not"
        );
        Ok(ssh::run(vault.lab, vault.client, &script)?.trim() == "reached")
    };
    ensure!(
        reaches("hyp")? && reaches("end")?,
        "without a filter the portal is reached from everywhere"
    );
    vault.here.run("nft -f /usr/share/doc/hasan/hasan.nft")?;
    ensure!(
        reaches("hyp")? && !reaches("end")?,
        "with the filter the portal is reached from its network alone"
    );
    Ok(())
}

/// A list of initiators, with a password for one, and for nobody else.
fn listed(vault: &Vault<'_>) -> Result<()> {
    let acls = format!("# initiators\n{FRIEND} lab {OLD}\nnonsense {NEW} x\n{BARE}\n");
    vault.here.run(&format!("printf '{acls}' > {ACLS} && chmod 600 {ACLS}"))?;
    let listed = format!("OCF_RESKEY_acl_file={ACLS}");
    vault.up(&listed)?;
    let said = vault.act("sync-iscsi-luns", &format!("{listed} OCF_CHECK_LEVEL=10"), "monitor")?;
    ensure!(said.starts_with("190 ") && said.contains(&format!("{ACLS}: line 3: ")), "{said}");
    ensure!(!said.contains("canary"), "a password is in a reason: {said}");
    for (initiator, password, want) in [
        (FRIEND, None, REFUSED),
        (FRIEND, Some("wrong-password"), REFUSED),
        (FRIEND, Some(OLD), 0),
        (STRANGER, Some(OLD), REFUSED),
        (BARE, None, 0),
    ] {
        ensure!(vault.login(initiator, password)? == want, "{initiator} with {password:?}");
    }
    // A stranger learns of no target but those that let everyone in.
    let discovery = "iscsiadm -m discovery -t st -I stranger -p 10.40.40.10:3260";
    let shown = ssh::run(vault.lab, vault.client, discovery)?;
    println!("a stranger discovers:\n{shown}");
    ensure!(shown.contains(":hypervisor"), "the open target is not shown");
    ensure!(!shown.contains(":vault") && !shown.contains(":storage-"), "too much is shown");
    vault.down()
}

/// The legs are for who has the other node's name and its password; the nodes themselves have both.
fn legs(lab: &Lab) -> Result<()> {
    let standby = Machine::named("storage-b")?;
    // Counted first: where a second interface's record of a target goes, open-iscsi takes the first one's along.
    let script = "node='-m node -T iqn.2025-01.lab.home:storage-a -p 10.10.10.1:3260 -I bare'
        exec 2>&1
        echo records $(find /etc/iscsi/nodes /var/lib/iscsi/nodes -type f 2> /dev/null | wc -l)
        find /etc/iscsi/nodes /var/lib/iscsi/nodes -type f -perm /077
        iscsiadm -m iface -I bare -o new
        iscsiadm $node -o new
        iscsiadm $node -o update -n node.session.initial_login_retry_max -v 1
        iscsiadm $node --login; echo code $?
        iscsiadm $node -o delete
        iscsiadm -m iface -I bare -o delete
        cat /sys/class/iscsi_session/session*/username /sys/class/iscsi_session/session*/username_in";
    let said = ssh::run(lab, standby, script)?;
    println!("without a password:\n{said}");
    let want = format!("code {REFUSED}");
    ensure!(said.lines().any(|line| line == want), "the legs are open without a password");
    ensure!(said.trim_end().ends_with("legs\nanswer"), "the nodes do not prove themselves");
    // Where there are none, none are open.
    ensure!(!said.lines().any(|line| line == "records 0"), "no records of the initiator's");
    let open: Vec<&str> = said.lines().filter(|line| line.starts_with('/')).collect();
    ensure!(open.is_empty(), "others may read {open:?}");
    Ok(())
}

/// The passwords are in the files that hold them, and nowhere else on the node. What proves that each search sees something
/// is searched for, too: a word of the journal's and one of the CIB's, and the list of initiators, which holds a password.
fn nowhere(vault: &Vault<'_>) -> Result<()> {
    let search = format!(
        "searched=/run/searched
         journalctl --sync; journalctl --boot --no-pager > $searched; grep -q hasan $searched && grep -c canar[y]- $searched
         cibadmin --query > $searched; grep -q hasan-owner $searched && grep -c canar[y]- $searched
         rm $searched
         grep -s -l -a canar[y]- /proc/[0-9]*/cmdline /proc/[0-9]*/environ
         grep -r -s -l canar[y]- /etc /var/lib/iscsi /run/hasan /var/lib/pacemaker /var/log/pacemaker /tmp /root > $searched
         grep -v -x -e {SECRETS} -e /etc/hasan/backend-chap.json $searched | grep -v -e '^/etc/iscsi/nodes/' -e '^/var/lib/iscsi/nodes/'
         true"
    );
    let found = vault.here.run(&search)?;
    let found: Vec<&str> = found.lines().collect();
    ensure!(found == ["0", "0", ACLS], "passwords are in {found:?}");
    Ok(())
}
