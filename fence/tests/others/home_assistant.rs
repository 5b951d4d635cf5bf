//! Home Assistant, with switches of its own helpers.

use crate::report::{AMPLE, Report};
use crate::server::{PATIENCE, Server, command, file, installed, scratch};
use reqwest::blocking::Client;
use serde_json::{Value, json};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// For what ends only when the time is over.
const SHORT: &str = "power_timeout=4\n";

struct HomeAssistant {
    server: Server,
    port: u16,
    token: String,
    client: Client,
}

impl HomeAssistant {
    fn start() -> HomeAssistant {
        let folder = scratch().join("home-assistant");
        // A server that was there before knows a user already.
        let _ = std::fs::remove_dir_all(&folder);
        let port = free_port();
        configure(&folder, port);
        let python = installed("python/bin/python");
        let mut command = command(&python);
        // What it needs is there; without this it would look for more.
        command.args(["-m", "homeassistant", "--skip-pip", "--config"]).arg(&folder);
        let mut server = Server::start("home-assistant", &mut command);
        wait_for(&mut server, port);
        let token = token(&python, port);
        let client = client();
        HomeAssistant { server, port, token, client }
    }

    fn lines(&self, action: &str, entity: &str, options: &str) -> String {
        let (port, token) = (self.port, &self.token);
        format!(
            "action={action}\ntype=homeassistant\nip=127.0.0.1\nipport={port}\nplug={entity}\n\
             password={token}\nhold=0.2\nstonith_status_sleep=0.1\n{options}\n"
        )
    }

    fn post(&self, path: &str, body: &Value) {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let request = self.client.post(url).bearer_auth(&self.token).body(body.to_string());
        request.send().unwrap().error_for_status().unwrap();
    }

    /// Moves one of the helpers that the switches are made of.
    fn set(&self, helper: &str, state: &str) {
        let body = json!({"entity_id": format!("input_boolean.{helper}")});
        self.post(&format!("/api/services/input_boolean/turn_{state}"), &body);
    }

    /// The helper behind a switch: the relay as it is.
    fn helper(&self, helper: &str) -> String {
        let url = format!("http://127.0.0.1:{}/api/states/input_boolean.{helper}", self.port);
        let text = self.client.get(url).bearer_auth(&self.token).send().unwrap().text().unwrap();
        let reply: Value = serde_json::from_str(&text).unwrap();
        reply["state"].as_str().unwrap().to_string()
    }

    /// How often somebody was turned away. The log is written behind the answers, so it is known when
    /// a refusal that comes later is in it.
    fn refusals(&self) -> usize {
        let url = format!("http://127.0.0.1:{}/api/config", self.port);
        self.client.get(url).bearer_auth("a-wrong-token").send().unwrap();
        wait_until("a refusal is in the log", || self.server.log().contains("'/api/config'"));
        self.server.log().matches("invalid authentication").count() - 1
    }
}

/// Looks again and again.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "in vain: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Home Assistant does not tell what port it has, so it is given one that was free just now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn configure(folder: &Path, port: u16) {
    std::fs::create_dir_all(folder).unwrap();
    let text = include_str!("home_assistant.yaml").replace("PORT", &port.to_string());
    #[expect(clippy::disallowed_methods, reason = "the configuration of the server")]
    std::fs::write(folder.join("configuration.yaml"), text).unwrap();
}

fn wait_for(server: &mut Server, port: u16) {
    wait_until("Home Assistant takes connections", || {
        assert!(server.is_running(), "Home Assistant has ended:\n{}", server.log());
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
}

fn token(python: &Path, port: u16) -> String {
    let mut command = command(python);
    command.arg(file("home_assistant_token.py")).arg(format!("http://127.0.0.1:{port}"));
    Server::start("home-assistant-token", &mut command).line()
}

fn client() -> Client {
    // It is asked for a provider of TLS though it speaks none here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

#[test]
fn home_assistant() {
    let mut report = Report::new("Home Assistant");
    let home = HomeAssistant::start();
    a_day(&mut report, &home);
    a_state_that_is_none(&mut report, &home);
    evidence_against_an_off(&mut report, &home);
    a_wrong_token(&mut report, &home);
    report.close();
}

fn a_day(report: &mut Report, home: &HomeAssistant) {
    for (action, code, text, relay) in [
        ("monitor", 0, "", "on"),
        ("status", 0, "Status: ON", "on"),
        ("off", 0, "Success: Powered OFF", "off"),
        ("status", 2, "Status: OFF", "off"),
        ("monitor", 0, "", "off"),
        ("off", 0, "Success: Powered OFF", "off"),
        ("on", 0, "Success: Powered ON", "on"),
        ("reboot", 0, "Success: Rebooted", "on"),
        ("list", 0, "switch.node_a,", "on"),
    ] {
        report.run(action, &home.lines(action, "switch.node_a", AMPLE), code, text);
        report.equal(&format!("{action}, relay"), home.helper("relay"), relay.to_string());
    }
}

fn a_state_that_is_none(report: &mut Report, home: &HomeAssistant) {
    home.set("present", "off");
    for (entity, text) in [
        ("switch.node_a", "\"unavailable\" is neither on nor off"),
        ("switch.nobody", "is not there (HTTP 404)"),
        ("switch.assumed", "the state is assumed"),
    ] {
        for action in ["off", "reboot", "on", "status", "monitor"] {
            let lines = home.lines(action, entity, SHORT);
            report.run(&format!("{action} of {entity}, which has no state"), &lines, 1, text);
        }
    }
    home.set("present", "on");
    home.set("relay", "on");
    // Anybody may write what Home Assistant shows; the switch itself is on.
    home.post("/api/states/switch.node_a", &json!({"state": "off"}));
    let lines = home.lines("status", "switch.node_a", AMPLE);
    report.run("status of a switch that is shown to be off", &lines, 0, "Status: ON");
}

fn evidence_against_an_off(report: &mut Report, home: &HomeAssistant) {
    for action in ["off", "reboot"] {
        let lines = home.lines(action, "switch.stuck", SHORT);
        let name = format!("{action} of a switch that stays on");
        report.run(&name, &lines, 1, "it took the command and is still on");
        // However slow the automation is, it is quicker than the hold time.
        let lines = home.lines(action, "switch.restless", &format!("{SHORT}hold=3\n"));
        let name = format!("{action} of a switch that an automation switches on");
        report.run(&name, &lines, 1, "on");
        // The program's time may be over while its last command is under way.
        wait_until("the automation has switched on", || home.helper("restless") == "on");
    }
    home.set("load", "on");
    let sensor = format!("{SHORT}power_sensor=sensor.node_a_power");
    for action in ["off", "reboot"] {
        let lines = home.lines(action, "switch.node_a", &sensor);
        report.run(&format!("{action} of a switch with a load"), &lines, 1, "measures 85 W");
        report.equal(&format!("{action}, relay"), home.helper("relay"), "off".to_string());
    }
    home.set("load", "off");
    let lines = home.lines("off", "switch.node_a", &sensor.replace(SHORT, AMPLE));
    report.run("off of a switch without a load", &lines, 0, "Success: Powered OFF");
}

fn a_wrong_token(report: &mut Report, home: &HomeAssistant) {
    home.set("relay", "on");
    let actions = ["off", "reboot", "on", "status", "monitor"];
    for action in actions {
        let lines = home.lines(action, "switch.node_a", AMPLE);
        let lines = lines.replace(&home.token, "a-wrong-token");
        let name = format!("{action} with a wrong token");
        report.run(&name, &lines, 1, "password is rejected");
        report.equal(&format!("{name}, relay"), home.helper("relay"), "on".to_string());
    }
    report.equal("a wrong token is shown once each time", home.refusals(), actions.len());
}
