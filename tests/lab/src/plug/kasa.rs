//! A plug of TP-Link's Kasa, protocol of TCP port 9999: JSON, each byte XORed with the one before it
//! (<https://github.com/softScheck/tplink-smartplug>).

use super::{Plug, is_on, switch};
use crate::state::Lab;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;

/// The key of the first byte.
const KEY: u8 = 171;

pub(super) fn converse(lab: &Lab, plug: &Plug, mut stream: TcpStream) -> Result<()> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes(head) as usize;
    ensure!(length < 4096, "a request of {length} bytes");
    let mut request = vec![0; length];
    stream.read_exact(&mut request)?;
    let mut key = KEY;
    for byte in &mut request {
        let sent = *byte;
        *byte ^= key;
        key = sent;
    }
    let request: Value = serde_json::from_slice(&request)?;
    let mut body = answer(lab, plug, &request)?.to_string().into_bytes();
    let mut key = KEY;
    for byte in &mut body {
        *byte ^= key;
        key = *byte;
    }
    stream.write_all(&u32::try_from(body.len())?.to_be_bytes())?;
    stream.write_all(&body)?;
    Ok(())
}

/// A request names modules and their commands; each is answered in its place.
fn answer(lab: &Lab, plug: &Plug, request: &Value) -> Result<Value> {
    let mut answer = request.clone();
    for (module, commands) in answer.as_object_mut().into_iter().flatten() {
        let Some(commands) = commands.as_object_mut() else { continue };
        for (command, value) in commands {
            *value = match (module.as_str(), command.as_str()) {
                ("system", "get_sysinfo") => {
                    json!({"err_code": 0, "alias": plug.machine, "feature": "TIM",
                    "relay_state": u8::from(is_on(lab, plug)?)})
                }
                ("system", "set_relay_state") => {
                    switch(lab, plug, value["state"] == 1)?;
                    json!({"err_code": 0})
                }
                (_, "get_rules") => json!({"err_code": 0, "rule_list": []}),
                _ => json!({"err_code": -2, "err_msg": "member not support"}),
            };
        }
    }
    Ok(answer)
}
