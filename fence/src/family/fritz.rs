//! FRITZ!DECT by a FRITZ!Box: "AHA-HTTP-Interface" and "Session-ID" of AVM's interface documents.

use crate::http::{Http, Request, encoded};
use crate::plug::{Plug, Power, Reading, Trouble};
use hasan::chap::Secret;
use quick_xml::Reader;
use quick_xml::events::Event;
use sha2::Sha256;
use std::time::Instant;

const LOGIN: &str = "/login_sid.lua?version=2";
/// The session of who is not logged in.
const NOBODY: &str = "0000000000000000";
/// A challenge may ask for so much work, rounds; real ones ask for a tenth.
const MOST_ROUNDS: u32 = 1_000_000;

/// One actuator.
pub(crate) struct Fritz {
    http: Http,
    user: String,
    password: Secret,
    ain: String,
    session: Option<String>,
}

/// Says what is wrong with an actuator's number.
pub(crate) fn check_ain(ain: &str) -> Result<(), String> {
    let is_letter = |c: u8| c.is_ascii_alphanumeric() || b" -:".contains(&c);
    if ain.len() >= 8 && ain.bytes().all(is_letter) {
        return Ok(());
    }
    Err(format!("the plug {ain:?} is not an AIN such as \"08761 0000434\""))
}

impl Fritz {
    pub(crate) fn new(http: Http, user: String, password: Secret, ain: String) -> Fritz {
        Fritz { http, user, password, ain, session: None }
    }

    /// Proves address and credentials.
    pub(crate) fn log_in(&mut self, until: Instant) -> Result<String, Trouble> {
        let request = Request { name: "the login", ..Request::get(LOGIN) };
        let asked = parse_session(&self.http.ask(request, until)?)?;
        if asked.block_time > 0 {
            // A login before that would make it longer.
            let text =
                format!("after a wrong password it takes no login for {} s", asked.block_time);
            return Err(Trouble::Passing(text));
        }
        let response = response(&asked.challenge, &self.password)?;
        let form = format!("username={}&response={}", encoded(&self.user), encoded(&response));
        let request = Request { name: "the login", ..Request::form(LOGIN, &form) };
        let session = parse_session(&self.http.ask(request, until)?)?;
        if session.sid != NOBODY {
            return Ok(session.sid);
        }
        let wait = session.block_time;
        Err(Trouble::Refused(format!(
            "the user or password is rejected, and the next login has to wait {wait} s"
        )))
    }

    /// Sends a command; a session that has ended is begun anew, once.
    fn command(&mut self, command: &str, until: Instant) -> Result<String, Trouble> {
        if let Some(session) = self.session.take() {
            match self.send(command, &session, until) {
                Err(Trouble::Refused(text)) => tracing::debug!("{text}"),
                other => {
                    self.session = Some(session);
                    return other;
                }
            }
        }
        let session = self.log_in(until)?;
        let answer = self.send(command, &session, until)?;
        self.session = Some(session);
        Ok(answer)
    }

    fn send(&mut self, command: &str, session: &str, until: Instant) -> Result<String, Trouble> {
        let ain = encoded(&self.ain);
        let path =
            format!("/webservices/homeautoswitch.lua?switchcmd={command}&ain={ain}&sid={session}");
        let answer = self.http.ask(Request { name: command, ..Request::get(&path) }, until)?;
        Ok(answer.trim_end().to_string())
    }
}

impl Plug for Fritz {
    fn label(&self) -> String {
        format!("the outlet {:?} of {}", self.ain, self.http.shown())
    }

    fn read(&mut self, until: Instant) -> Result<Reading, Trouble> {
        Ok(parse_state(&self.command("getswitchstate", until)?)?.into())
    }

    /// The state is what the box remembers: the outlet has to be in reach of its radio. Its watts
    /// are minutes old, and prove nothing either way.
    fn read_closely(&mut self, until: Instant) -> Result<Reading, Trouble> {
        match self.command("getswitchpresent", until)?.as_str() {
            "1" => self.read(until),
            other => Err(Trouble::Passing(format!("it is out of reach ({other:?})"))),
        }
    }

    /// The answer is the new state, or `inval`.
    fn switch(&mut self, to: Power, until: Instant) -> Result<(), Trouble> {
        parse_state(&self.command(&format!("setswitch{to}"), until)?).map(|_| ())
    }
}

fn parse_state(answer: &str) -> Result<Power, Trouble> {
    match answer {
        "0" => Ok(Power::Off),
        "1" => Ok(Power::On),
        "inval" => Err(Trouble::Passing("its state is not known (\"inval\")".to_string())),
        _ => Err(Trouble::Passing("its state is neither 0 nor 1".to_string())),
    }
}

/// What the login page tells.
#[derive(Debug, Default, PartialEq, Eq)]
struct Session {
    sid: String,
    challenge: String,
    block_time: u32,
}

/// `<SessionInfo><SID>…</SID><Challenge>…</Challenge><BlockTime>0</BlockTime>…`.
fn parse_session(text: &str) -> Result<Session, Trouble> {
    let strange = || Trouble::Passing("its login answers something strange".to_string());
    let (mut session, mut open) = (Session::default(), String::new());
    let mut reader = Reader::from_str(text);
    loop {
        match reader.read_event().map_err(|_| strange())? {
            Event::Start(element) => open = element.name().as_ref().to_string(),
            Event::End(_) => open.clear(),
            Event::Text(text) => {
                let text = text.to_string();
                match open.as_str() {
                    "SID" => session.sid = text,
                    "Challenge" => session.challenge = text,
                    "BlockTime" => session.block_time = text.parse().map_err(|_| strange())?,
                    _ => {}
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    let is_hexadecimal = session.sid.bytes().all(|c| c.is_ascii_hexdigit());
    if session.sid.len() == NOBODY.len() && is_hexadecimal { Ok(session) } else { Err(strange()) }
}

/// The answer to `2$ROUNDS$SALT$ROUNDS$SALT`: PBKDF2 twice, the second salt before it. The challenge
/// of boxes before FRITZ!OS 7.24 asks for MD5, which is not answered.
fn response(challenge: &str, password: &Secret) -> Result<String, Trouble> {
    let parts: Vec<&str> = challenge.split('$').collect();
    let ["2", rounds1, salt1, rounds2, salt2] = parts.as_slice() else {
        let text = "its challenge is not PBKDF2: it needs FRITZ!OS 7.24 or later";
        return Err(Trouble::Lasting(text.to_string()));
    };
    let first = stretched(password.expose().as_bytes(), rounds1, salt1)?;
    let second = stretched(&first, rounds2, salt2)?;
    let digits: String = second.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{salt2}${digits}"))
}

fn stretched(secret: &[u8], rounds: &str, salt: &str) -> Result<[u8; 32], Trouble> {
    let strange = || Trouble::Passing("its challenge is strange".to_string());
    let rounds = rounds.parse().ok().filter(|rounds| (1..=MOST_ROUNDS).contains(rounds));
    let salt = bytes(salt).ok_or_else(strange)?;
    let mut key = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(secret, &salt, rounds.ok_or_else(strange)?, &mut key);
    Ok(key)
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let is_whole = digits.len().is_multiple_of(2) && digits.bytes().all(|c| c.is_ascii_hexdigit());
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).ok();
    is_whole.then(|| (0..digits.len()).step_by(2).map(byte).collect()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_answered_as_in_the_document() {
        // AVM, "Login to the FRITZ!Box Web Interface", the example.
        let password = Secret::new("1example!".to_string());
        let want = "5A1722$1798a1672bca7c6463d6b245f82b53703b0f50813401b03e4045a5861e689adb";
        assert_eq!(response("2$10000$5A1711$2000$5A1722", &password).as_deref(), Ok(want));
        for challenge in [
            "",
            "1234567z",
            "2$1$5A$1",
            "2$0$5A$1$5A",
            "2$1$5$1$5A",
            "2$9999999$5A$1$5A",
            "2$1$é$1$5A",
        ] {
            assert!(response(challenge, &password).is_err(), "{challenge}");
        }
    }

    #[test]
    fn the_state_is_read_strictly() {
        assert_eq!(parse_state("0"), Ok(Power::Off));
        assert_eq!(parse_state("1"), Ok(Power::On));
        for answer in ["", "inval", "00", "2", "off", "false", "<html>", "0 1"] {
            assert!(parse_state(answer).is_err(), "{answer}");
        }
    }

    #[test]
    fn a_session_is_read_strictly() {
        let text = "<?xml version=\"1.0\"?><SessionInfo><SID>0000000000000000</SID><Challenge>2$1$5A$1$5B</Challenge>\
            <BlockTime>8</BlockTime><Rights></Rights></SessionInfo>";
        let session = parse_session(text).unwrap();
        assert_eq!((session.challenge.as_str(), session.block_time), ("2$1$5A$1$5B", 8));
        for (from, to) in [
            ("0000000000000000", "0"),
            ("0000000000000000", "&x=0000000000000"),
            ("8", "x"),
            ("</SID>", ""),
        ] {
            assert!(parse_session(&text.replace(from, to)).is_err(), "{to}");
        }
        for text in ["", "<html>", "{}"] {
            assert!(parse_session(text).is_err(), "{text}");
        }
        assert!(check_ain("08761 0000434").is_ok() && check_ain("116570240192-1").is_ok());
        assert!(check_ain("1").is_err() && check_ain("storage&sid").is_err());
    }
}
