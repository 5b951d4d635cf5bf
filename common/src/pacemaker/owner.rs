//! The record of who had a pool last, and its text.

/// The record of who had a pool last. It stands in the cluster's configuration, so that every node
/// that can vote has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The node that had the pool last, or was about to take it.
    pub node: String,
    /// The pool's GUID; `None` if an administrator made the record.
    pub pool_guid: Option<u64>,
    /// The host ids of the owner and of the one before it: whose labels may be the newest, because an
    /// import that was broken off leaves the older ones. Empty if an administrator made the record.
    pub hostids: Vec<u64>,
    /// The pool's transaction group when the owner was about to take it.
    pub txg: Option<u64>,
    /// When the owner's power had last been cut by then, seconds since 1970; `None` if nobody knew of a cut.
    pub fenced: Option<u64>,
}

impl Owner {
    /// Whether the record knows of this cut of its node's power. A node that starts the pool as soon as it has joined does not
    /// know yet what the others remember, and an administrator's record has nothing of the kind.
    pub fn knows(&self, cut: Option<u64>) -> bool {
        cut.is_none() || super::is_same_fencing(self.fenced, cut)
    }

    /// What an administrator runs, once, to make the record of a pool.
    pub fn command(pool: &str, node: &str) -> String {
        let name = Owner::name(pool);
        format!("crm_attribute -t crm_config -n {name} -v {node}")
    }

    pub(super) fn name(pool: &str) -> String {
        format!("hasan-owner-{pool}")
    }

    pub(super) fn text(&self) -> String {
        let hostids: Vec<String> = self.hostids.iter().map(|id| format!("{id:x}")).collect();
        let fenced = self.fenced.map(|time| format!(" fenced={time}")).unwrap_or_default();
        match (self.pool_guid, self.txg) {
            (Some(guid), Some(txg)) => {
                format!("{} guid={guid} hosts={} txg={txg}{fenced}", self.node, hostids.join(","))
            }
            _ => self.node.clone(),
        }
    }

    /// `None` if the text is not exactly what [`Owner::text`] makes of a record: a change is bound to the text that is there.
    pub(super) fn parse(text: &str) -> Option<Owner> {
        Owner::read(text).filter(|owner| owner.text() == text)
    }

    fn read(text: &str) -> Option<Owner> {
        let words: Vec<&str> = text.split(' ').collect();
        let node = |name: &str| (!name.is_empty()).then(|| name.to_string());
        let (name, guid, hosts, txg, fenced) = match words[..] {
            [name] => {
                return Some(Owner {
                    node: node(name)?,
                    pool_guid: None,
                    hostids: Vec::new(),
                    txg: None,
                    fenced: None,
                });
            }
            [name, guid, hosts, txg] => (name, guid, hosts, txg, None),
            [name, guid, hosts, txg, fenced] => (name, guid, hosts, txg, Some(fenced)),
            _ => return None,
        };
        Some(Owner {
            node: node(name)?,
            pool_guid: Some(guid.strip_prefix("guid=")?.parse().ok()?),
            hostids: hosts
                .strip_prefix("hosts=")?
                .split(',')
                .map(|id| u64::from_str_radix(id, 16).ok())
                .collect::<Option<_>>()?,
            txg: Some(txg.strip_prefix("txg=")?.parse().ok()?),
            fenced: match fenced {
                Some(text) => Some(text.strip_prefix("fenced=")?.parse().ok()?),
                None => None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_strange_one_is_none() {
        let full = Owner {
            node: "storage-a".to_string(),
            pool_guid: Some(u64::MAX),
            hostids: vec![0xc0de_0001, 2],
            txg: Some(77),
            fenced: None,
        };
        assert_eq!(full.text(), "storage-a guid=18446744073709551615 hosts=c0de0001,2 txg=77");
        assert_eq!(Owner::parse(&full.text()), Some(full.clone()));
        let fenced = Owner { fenced: Some(9), ..full.clone() };
        assert_eq!(fenced.text(), format!("{} fenced=9", full.text()));
        assert_eq!(Owner::parse(&fenced.text()), Some(fenced));
        for (fenced, cut, want) in [
            (None, None, true),
            (None, Some(9), false),
            (Some(9), None, true),
            (Some(9), Some(15), true),
            (Some(9), Some(90), false),
        ] {
            let owner = Owner { fenced, ..full.clone() };
            assert_eq!(owner.knows(cut), want, "{fenced:?} {cut:?}");
        }
        let by_hand = Owner::parse("storage-b").unwrap();
        assert_eq!((by_hand.text().as_str(), by_hand.hostids.len()), ("storage-b", 0));
        for strange in [
            "",
            "a guid=1",
            "a guid=x hosts=1 txg=1",
            "a guid=1 hosts= txg=1",
            "a b c d",
            "a guid=1 hosts=01 txg=1",
            "a guid=1 hosts=1 txg=1 fenced=",
            "a guid=1 hosts=1 txg=1 txg=1",
            "a fenced=1",
        ] {
            assert_eq!(Owner::parse(strange), None, "{strange:?}");
        }
    }
}
