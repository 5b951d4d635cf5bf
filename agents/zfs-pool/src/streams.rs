//! Who sends or receives of a pool: such a program holds it, and can be had again.

use hasan::machine::Machine;
use hasan::ocf::Fault;
use hasan::processes::{self, Process};
use std::path::Path;

/// The pool, and whether ZFS has called it busy though nobody was seen to hold it.
pub(crate) struct Pool<'a> {
    pub(crate) name: &'a str,
    pub(crate) is_busy: bool,
}

/// What holds a dataset from its first byte to its last (`dmu_send_obj`, `dmu_recv_stream`), and has nothing open but ZFS's own
/// device and a pipe: `zpool export` calls the pool busy (`spa_export_common`). Other commands hold nothing beyond one question
/// to the kernel, and may yet be there for long: a list whose reader does not read on, a key that nobody types.
pub(crate) fn streams(machine: &Machine, pool: &Pool<'_>) -> Result<Vec<Process>, Fault> {
    let mut tools = processes::with_open(machine, |path| path == Path::new("/dev/zfs"))?;
    tools.retain(|tool| tool.name == "zfs" && is_stream(pool, &tool.words(machine)));
    Ok(tools)
}

/// Whether a command line is one of zfs-send(8) or zfs-receive(8) of the pool. The token of a send that goes on where it was
/// broken off hides the pool.
fn is_stream(pool: &Pool<'_>, words: &[String]) -> bool {
    let Some(([_, command], operands)) = words.split_first_chunk() else { return false };
    let is_named = |word: &String| {
        word.strip_prefix(pool.name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '@', '#']))
    };
    match command.as_str() {
        "send" => operands.iter().any(|word| is_named(word) || pool.is_busy && is_token(word)),
        "receive" | "recv" => operands.iter().any(is_named),
        _ => false,
    }
}

/// A token of `zfs send -t`: its version, a checksum, a length and the rest, hexadecimal (`zfs_send_resume_token_to_nvlist`).
fn is_token(word: &str) -> bool {
    let parts: Vec<&str> = word.split('-').collect();
    let is_hex = |part: &&str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_hexdigit());
    parts.len() == 4 && parts[0] == "1" && parts.iter().all(is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_sends_or_receives_of_the_pool_is_a_stream() {
        let judged = |line: &str, is_busy: bool| {
            let words: Vec<String> = line.split(' ').map(str::to_string).collect();
            is_stream(&Pool { name: "p", is_busy }, &words)
        };
        let is = |line: &str| judged(line, true);
        let by_token = "zfs send -t 1-e604ea4bf-e0-789c636064000310a501c49c50";
        assert!(is(by_token) && !judged(by_token, false), "another pool's may be");
        for line in [
            "zfs send p/v/a@x",
            "zfs send -Rw p@x",
            "zfs send -i p/v/a#x p/v/a@y",
            "zfs receive -d p",
            "/sbin/zfs recv -o compression=off p/backup/a b",
        ] {
            assert!(is(line), "{line}");
        }
        for line in [
            "zfs send q/v@x",
            "zfs receive px/v",
            "zfs list -r p",
            "zfs load-key p/secret",
            "zfs send q/1-a-b-c@x",
            "zfs receive q/p",
            "zfs",
            "",
        ] {
            assert!(!is(line), "{line}");
        }
    }
}
