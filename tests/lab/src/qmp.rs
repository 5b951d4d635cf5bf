//! QEMU's control socket (QEMU Machine Protocol): one command at a time.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const ANSWER: Duration = Duration::from_secs(60);

/// Sends one command, and returns its answer.
pub(crate) fn command(socket: &Path, name: &str, arguments: Value) -> Result<Value> {
    let cannot = || format!("cannot reach the machine at {}", socket.display());
    let mut stream = UnixStream::connect(socket).with_context(cannot)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    for request in
        [json!({"execute": "qmp_capabilities"}), json!({"execute": name, "arguments": arguments})]
    {
        stream.write_all(format!("{request}\n").as_bytes())?;
        line = answer(&mut lines)?;
    }
    let answer: Value = serde_json::from_str(&line)?;
    match answer.get("return") {
        Some(value) => Ok(value.clone()),
        None => bail!("{name}: {line}"),
    }
}

/// The next line that is no event.
fn answer(lines: &mut impl BufRead) -> Result<String> {
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            bail!("the machine closed its control socket");
        }
        if !line.contains("\"event\"") {
            return Ok(line);
        }
    }
}
