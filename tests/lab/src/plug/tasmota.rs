//! A plug with Tasmota and one relay (<https://tasmota.github.io/docs/Commands/>): commands in the query of a GET, JSON in the
//! answer, errors with status 200. It wants a password.

use super::{Plug, is_on, switch};
use crate::state::Lab;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

/// `admin` and [`super::PASSWORD`], as RFC 7617 sends them.
const PROOF: &str = "Basic YWRtaW46bGFi";

pub(super) fn converse(lab: &Lab, plug: &Plug, mut stream: TcpStream) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().context("no request")??;
    let mut is_let_in = false;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        is_let_in |= line.split_once(": ").is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("authorization") && value == PROOF
        });
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match path.strip_prefix("/cm?cmnd=") {
        _ if !is_let_in => ("401 Unauthorized", json!({"WARNING": "Need user and password"})),
        None => ("404 Not Found", json!({})),
        Some(command) => match answer(lab, plug, &command.replace("%20", " ")) {
            Ok(body) => ("200 OK", body),
            Err(error) => ("500 Internal Server Error", json!({"error": format!("{error:#}")})),
        },
    };
    let body = body.to_string();
    let head = "Content-Type: application/json\r\nConnection: close";
    write!(stream, "HTTP/1.1 {status}\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    Ok(())
}

fn answer(lab: &Lab, plug: &Plug, command: &str) -> Result<Value> {
    let state = || -> Result<&str> { Ok(if is_on(lab, plug)? { "ON" } else { "OFF" }) };
    Ok(match command {
        "Power1 ON" | "Power1 OFF" => {
            switch(lab, plug, command == "Power1 ON")?;
            json!({"POWER": state()?})
        }
        "Power1" => json!({"POWER": state()?}),
        "Status" => json!({"Status": {"PowerOnState": 3}}),
        "Status 0" => json!({"Status": {"PowerOnState": 3}, "StatusSTS": {"POWER": state()?}}),
        "PulseTime1" => json!({"PulseTime1": {"Set": 0, "Remaining": 0}}),
        command if command.starts_with("Power") => json!({"Command": "Error"}),
        _ => json!({"Command": "Unknown"}),
    })
}
