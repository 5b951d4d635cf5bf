//! Plugs of other people that run in one server: it tells their ports, and what is true of them.

use crate::report::QUICK;
use crate::server::Server;
use serde_json::Value;
use std::process::Command;

/// Some plugs.
pub(crate) struct Plugs {
    server: Server,
    pub(crate) ports: Vec<u16>,
}

impl Plugs {
    pub(crate) fn start(name: &str, command: &mut Command) -> Plugs {
        let server = Server::start(name, command);
        let ports = serde_json::from_str(&server.line()).unwrap();
        Plugs { server, ports }
    }

    /// What is true of each, whatever it says.
    pub(crate) fn truth(&mut self) -> Value {
        serde_json::from_str(&self.server.ask("")).unwrap()
    }

    /// Options for one of them.
    pub(crate) fn lines(&self, plug: usize, family: &str, action: &str, options: &str) -> String {
        let port = self.ports[plug];
        format!("action={action}\ntype={family}\nip=127.0.0.1\nipport={port}\n{QUICK}{options}\n")
    }
}
