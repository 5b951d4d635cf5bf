//! STONITH agent of the lab: cuts a machine's power by the lab's plugs. Parameters come on standard input, `key=value` a
//! line (FenceAgentAPI); off is a success only after the plug was read to be off.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a fence agent speaks on its streams"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write, stdin};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

const METADATA: &str = r#"<?xml version="1.0" ?>
<resource-agent name="fence_lab" shortdesc="Fence agent of the hasan lab">
<longdesc>Cuts the power of a virtual machine of the lab.</longdesc>
<vendor-url>http://localhost</vendor-url>
<parameters>
<parameter name="action" unique="0" required="1"><getopt mixed="-o, --action=[action]" /><content type="string" default="reboot" /><shortdesc lang="en">Fencing action</shortdesc></parameter>
<parameter name="ip" unique="0" required="1"><getopt mixed="-a, --ip=[ip]" /><content type="string" /><shortdesc lang="en">Address of the plugs</shortdesc></parameter>
<parameter name="plug" unique="0" required="1"><getopt mixed="-n, --plug=[name]" /><content type="string" /><shortdesc lang="en">Name of the machine</shortdesc></parameter>
</parameters>
<actions>
<action name="on" automatic="0"/>
<action name="off" />
<action name="reboot" />
<action name="status" />
<action name="monitor" />
<action name="metadata" />
<action name="validate-all" />
</actions>
</resource-agent>
"#;

fn main() -> ExitCode {
    let mut options = BTreeMap::new();
    for line in stdin().lock().lines().map_while(Result::ok) {
        if let Some((key, value)) = line.split_once('=') {
            options.insert(key.trim().to_string(), value.trim().to_string());
        }
    }
    match act(&options) {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("fence_lab: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn act(options: &BTreeMap<String, String>) -> Result<ExitCode, String> {
    let get = |name: &str| options.get(name).map_or("", String::as_str);
    let (ip, plug) = (get("ip"), get("plug"));
    match get("action") {
        "metadata" => print!("{METADATA}"),
        "validate-all" => {}
        "monitor" => {
            ask(ip, "status", "storage-a")?;
        }
        "status" => {
            if ask(ip, "status", plug)? == "off" {
                return Ok(ExitCode::from(2));
            }
        }
        "off" => switch(ip, plug, "off")?,
        "on" => switch(ip, plug, "on")?,
        "" | "reboot" => {
            switch(ip, plug, "off")?;
            // The node is off, and that is what counts; power again is a favour.
            if let Err(reason) = switch(ip, plug, "on") {
                eprintln!("fence_lab: {reason}");
            }
        }
        other => return Err(format!("the action {other:?} is not supported")),
    }
    Ok(ExitCode::SUCCESS)
}

fn switch(ip: &str, plug: &str, to: &str) -> Result<(), String> {
    ask(ip, to, plug)?;
    match ask(ip, "status", plug)?.as_str() {
        state if state == to => Ok(()),
        state => Err(format!("{plug} was switched {to} and is {state}")),
    }
}

fn ask(ip: &str, verb: &str, plug: &str) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot ask the plugs at {ip}: {error}");
    let address = (ip, 9999).to_socket_addrs().map_err(cannot)?.next();
    let address = address.ok_or_else(|| format!("{ip} is no address"))?;
    let mut stream =
        TcpStream::connect_timeout(&address, Duration::from_secs(10)).map_err(cannot)?;
    stream.set_read_timeout(Some(Duration::from_secs(50))).map_err(cannot)?;
    writeln!(stream, "{verb} {plug}").map_err(cannot)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(cannot)?;
    match answer.trim() {
        "on" => Ok("on".to_string()),
        "off" => Ok("off".to_string()),
        other => Err(format!("the plug of {plug} answers {other:?}")),
    }
}
