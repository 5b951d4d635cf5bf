//! KLAP: JSON to a TP-Link device, encrypted with what both sides know of its account, over HTTP.
//! Facts by python-kasa, `transports/klaptransport.py`.

mod session;

use crate::http::{Http, Request};
use crate::json;
use crate::plug::{Hazard, Trouble};
use hasan::chap::Secret;
use rustls::crypto::ring;
use serde_json::Value;
use session::{Handshake, Owner, Seed, Session};
use std::time::Instant;

/// Where a handshake begins.
pub(crate) const HANDSHAKE: &str = "/app/handshake1";
/// What a device says to that: its seed and its proof, bytes.
pub(crate) const ANSWER: usize = 48;
/// The cookie that names a session. Another one, `TIMEOUT`, must not be sent back.
const COOKIE: &str = "TP_SESSIONID";

/// A device that speaks KLAP.
pub(crate) struct Klap {
    http: Http,
    owner: Owner,
    open: Option<Open>,
}

/// A session that the device knows.
struct Open {
    cookie: String,
    session: Session,
}

impl Klap {
    /// Nothing is sent yet.
    pub(crate) fn new(http: Http, user: String, password: Secret) -> Klap {
        Klap { http, owner: Owner::new(user, password), open: None }
    }

    /// As messages name it.
    pub(crate) fn shown(&self) -> String {
        self.http.shown()
    }

    /// Sends a command. A session that the device has forgotten is begun anew, once; after any other
    /// trouble the next command begins one.
    ///
    /// # Errors
    /// What is wrong with the connection, the account or the answer.
    pub(crate) fn ask(&mut self, command: &Value, until: Instant) -> Result<Value, Trouble> {
        let command = command.to_string();
        if let Some(open) = self.open.take() {
            match self.send(open, &command, until) {
                Err(Trouble::Refused(text)) => tracing::debug!("{text}: a new session is begun"),
                other => return other,
            }
        }
        let open = self.handshake(until)?;
        self.send(open, &command, until)
    }

    /// The device proves first that it knows the account; only then is it shown our proof.
    fn handshake(&mut self, until: Instant) -> Result<Open, Trouble> {
        let local = seed()?;
        let request = Request { name: "the handshake", ..Request::bytes(HANDSHAKE, &local) };
        let reply = self.http.exchange(request, until).map_err(with_reason)?;
        let handshake = Handshake::of(&self.owner, local, &reply.body)?;
        let cookie = parse_cookie(&reply.cookies)?;
        let proof = handshake.proof();
        let request = Request::bytes("/app/handshake2", &proof);
        let request = Request { name: "the login", cookie: Some(&cookie), ..request };
        self.http.exchange(request, until).map_err(with_reason)?;
        Ok(Open { cookie, session: handshake.session() })
    }

    fn send(&mut self, mut open: Open, command: &str, until: Instant) -> Result<Value, Trouble> {
        let (number, sealed) = open.session.seal(command)?;
        let path = format!("/app/request?seq={number}");
        let request = Request::bytes(&path, &sealed);
        let request = Request { name: "the request", cookie: Some(&open.cookie), ..request };
        let reply = self.http.exchange(request, until).map_err(with_reason)?;
        let answer = json::object(&open.session.open(&reply.body)?)?;
        self.open = Some(open);
        Ok(answer)
    }
}

/// Its obedience proves nothing yet: such plugs have refused an off when they lost their cloud.
pub(crate) fn in_touch_with_the_cloud() -> Hazard {
    Hazard {
        setting: "it reaches TP-Link's cloud, without which such plugs have refused an off"
            .to_string(),
        mend: "cut it off from the Internet, and then rehearse the fence".to_string(),
    }
}

/// Sixteen bytes that nobody can know before.
fn seed() -> Result<Seed, Trouble> {
    let mut seed = Seed::default();
    match ring::default_provider().secure_random.fill(&mut seed) {
        Ok(()) => Ok(seed),
        Err(_) => Err(Trouble::Passing("the system has no random numbers".to_string())),
    }
}

/// What a refusal may mean with these devices.
fn with_reason(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Refused(text) => Trouble::Refused(format!(
            "{text}: such plugs may refuse without TP-Link's cloud, or since an update"
        )),
        other => other,
    }
}

/// `TP_SESSIONID=…;TIMEOUT=86400`, as it is to be sent back.
fn parse_cookie(cookies: &[String]) -> Result<String, Trouble> {
    let pairs = cookies.iter().flat_map(|cookie| cookie.split(';')).map(str::trim);
    let mut sessions = pairs.filter(|pair| {
        pair.split_once('=').is_some_and(|(name, value)| name == COOKIE && !value.is_empty())
    });
    let session = sessions.next().map(str::to_string);
    session.ok_or_else(|| Trouble::Passing("its handshake begins no session".to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_of_the_session_alone_is_sent_back() {
        let of = |cookies: &[&str]| {
            let cookies: Vec<String> = cookies.iter().map(|cookie| cookie.to_string()).collect();
            parse_cookie(&cookies).ok()
        };
        let want = Some("TP_SESSIONID=AB12".to_string());
        assert_eq!(of(&["TP_SESSIONID=AB12;TIMEOUT=86400"]), want);
        assert_eq!(of(&["TIMEOUT=1", "x=y; TP_SESSIONID=AB12; Path=/"]), want);
        for cookies in [&[][..], &["TIMEOUT=1"], &["TP_SESSIONID="], &["xTP_SESSIONID=1"]] {
            assert_eq!(of(cookies), None, "{cookies:?}");
        }
    }

    #[test]
    fn no_seed_is_the_same() {
        assert_ne!(seed().unwrap(), seed().unwrap());
    }
}
