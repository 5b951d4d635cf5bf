//! HTTP, as little of it as plugs need: no proxy, no redirect, no connection that is kept, answers
//! of bounded size, and a limit of time for everything. No message shows a URL's query or a secret.

use crate::address::{Limits, Place};
use crate::plug::Trouble;
use crate::tls::Tls;
use hasan::chap::Secret;
use reqwest::StatusCode;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, SET_COOKIE, WWW_AUTHENTICATE};
use std::error::Error;
use std::io::Read;
use std::time::Instant;

/// An answer may be so long, bytes.
const LONGEST: usize = 64 * 1024;

/// How this program proves itself to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Auth {
    /// Not at all.
    None,
    /// RFC 7617, from the first request on; and by Digest where the device asks for that.
    Basic(String, Secret),
    /// RFC 7616, at the device's challenge; the password itself is never sent.
    Digest(String, Secret),
    /// RFC 6750.
    Bearer(Secret),
    /// A header `Token`, as myStrom has it.
    Token(Secret),
}

/// The verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// GET.
    Get,
    /// POST.
    Post,
}

/// One request.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    /// The verb.
    pub(crate) method: Method,
    /// Path and query, encoded; or a whole URL.
    pub(crate) path: &'a str,
    /// What is to be sent, with its media type.
    pub(crate) body: Option<(&'a [u8], &'static str)>,
    /// The session that it belongs to.
    pub(crate) cookie: Option<&'a str>,
    /// How messages name it.
    pub(crate) name: &'a str,
}

impl<'a> Request<'a> {
    /// A GET, which messages name by its path.
    pub(crate) fn get(path: &'a str) -> Request<'a> {
        Request { method: Method::Get, path, body: None, cookie: None, name: path }
    }

    /// A POST with JSON, which messages name by its path.
    pub(crate) fn post(path: &'a str, body: &'a str) -> Request<'a> {
        Request::with_body(path, body.as_bytes(), "application/json")
    }

    /// A POST with the fields of a form, encoded.
    pub(crate) fn form(path: &'a str, fields: &'a str) -> Request<'a> {
        Request::with_body(path, fields.as_bytes(), "application/x-www-form-urlencoded")
    }

    /// A POST with bytes.
    pub(crate) fn bytes(path: &'a str, body: &'a [u8]) -> Request<'a> {
        Request::with_body(path, body, "application/octet-stream")
    }

    fn with_body(path: &'a str, body: &'a [u8], media_type: &'static str) -> Request<'a> {
        let body = Some((body, media_type));
        Request { method: Method::Post, path, body, cookie: None, name: path }
    }
}

/// A good answer.
pub(crate) struct Reply {
    /// What `Set-Cookie` says, each time.
    pub(crate) cookies: Vec<String>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// An answer whose status is not looked at yet.
struct Answer {
    status: StatusCode,
    challenge: Option<String>,
    reply: Reply,
}

/// A device that speaks HTTP.
pub(crate) struct Http {
    place: Place,
    tls: Tls,
    auth: Auth,
    limits: Limits,
    client: Option<Client>,
}

impl Http {
    /// Nothing is sent yet.
    pub(crate) fn new(place: Place, tls: Tls, auth: Auth, limits: Limits) -> Http {
        Http { place, tls, auth, limits, client: None }
    }

    /// As messages name it.
    pub(crate) fn shown(&self) -> String {
        self.place.shown()
    }

    /// The text of a good answer.
    ///
    /// # Errors
    /// What is wrong with the connection or the answer.
    pub(crate) fn ask(&mut self, request: Request, until: Instant) -> Result<String, Trouble> {
        let body = self.exchange(request, until)?.body;
        let name = request.name;
        String::from_utf8(body)
            .map_err(|_| Trouble::Passing(format!("the answer to {name} is not text")))
    }

    /// A good answer, of whatever kind.
    ///
    /// # Errors
    /// What is wrong with the connection or the status.
    pub(crate) fn exchange(&mut self, request: Request, until: Instant) -> Result<Reply, Trouble> {
        let answer = self.send(request, until)?;
        judge(answer.status, request.name)?;
        Ok(answer.reply)
    }

    /// Sends a request, and a second time where the device asks for Digest.
    fn send(&mut self, request: Request, until: Instant) -> Result<Answer, Trouble> {
        let auth = self.auth.clone();
        let answer = self.send_once(request, until, |builder| match &auth {
            Auth::None | Auth::Digest(..) => builder,
            Auth::Basic(user, password) => builder.basic_auth(user, Some(password.expose())),
            Auth::Bearer(token) => builder.bearer_auth(token.expose()),
            Auth::Token(token) => builder.header("Token", token.expose()),
        })?;
        let challenge = answer.challenge.as_deref().unwrap_or_default();
        let (Auth::Basic(user, password) | Auth::Digest(user, password)) = &auth else {
            return Ok(answer);
        };
        if answer.status != StatusCode::UNAUTHORIZED || !is_digest(challenge) {
            return Ok(answer);
        }
        let whole = request.path.split_once("://").filter(|_| !request.path.starts_with('/'));
        let uri = match whole {
            None => request.path,
            Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        };
        let header = digest(challenge, user, password, uri, request.method)?;
        self.send_once(request, until, |builder| builder.header(AUTHORIZATION, header))
    }

    fn send_once(
        &mut self,
        request: Request,
        until: Instant,
        authorize: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Answer, Trouble> {
        let end = self.limits.end(until)?;
        let url = self.url(request.path);
        let client = self.client()?;
        let mut builder = match request.method {
            Method::Get => client.get(url),
            // An empty body says that its length is 0, which small servers want to hear.
            Method::Post => client.post(url).body(request.body.unwrap_or_default().0.to_vec()),
        };
        if let Some((_, media_type)) = request.body {
            builder = builder.header(CONTENT_TYPE, media_type);
        }
        if let Some(cookie) = request.cookie {
            builder = builder.header(COOKIE, cookie);
        }
        let time = end.saturating_duration_since(Instant::now());
        let sent = authorize(builder).timeout(time).send();
        let response = sent.map_err(|error| failed(error, request.name))?;
        read(response, end, request.name)
    }

    fn url(&self, path: &str) -> String {
        // A path may have a whole URL within it.
        if !path.starts_with('/') {
            return path.to_string();
        }
        let scheme = if self.tls == Tls::None { "http" } else { "https" };
        format!("{scheme}://{}:{}{path}", self.place.shown(), self.place.port)
    }

    fn client(&mut self) -> Result<&Client, Trouble> {
        if self.client.is_none() {
            let addresses = self.place.resolve(self.limits.connect)?;
            let builder = Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .pool_max_idle_per_host(0)
                .http1_only()
                .referer(false)
                .connect_timeout(self.limits.connect)
                .resolve_to_addrs(&self.place.host, &addresses);
            let builder = self.tls.apply(builder).map_err(Trouble::Lasting)?;
            let client = builder.build().map_err(|error| {
                Trouble::Lasting(format!("cannot set up HTTP: {}", innermost(&error)))
            })?;
            self.client = Some(client);
        }
        self.client.as_ref().ok_or_else(|| Trouble::Lasting("cannot set up HTTP".to_string()))
    }
}

/// What a status says, RFC 9110 section 15.
fn judge(status: StatusCode, name: &str) -> Result<(), Trouble> {
    let code = status.as_u16();
    match code {
        200..=299 => Ok(()),
        300..=399 => Err(Trouble::Lasting(format!(
            "{name} is redirected (HTTP {code}), which is not followed"
        ))),
        401 => {
            Err(Trouble::Refused(format!("{name}: the user or password is rejected (HTTP 401)")))
        }
        403 => Err(Trouble::Refused(format!("{name} is forbidden (HTTP 403)"))),
        404 => Err(Trouble::Lasting(format!("{name} is not there (HTTP 404)"))),
        408 | 429 | 500..=599 => {
            Err(Trouble::Passing(format!("{name} is answered by HTTP {code}")))
        }
        _ => Err(Trouble::Lasting(format!("{name} is answered by HTTP {code}"))),
    }
}

/// Reads an answer. The limit of a single read does not bound a slow drip, so the time is looked at
/// after each piece.
fn read(mut response: Response, end: Instant, name: &str) -> Result<Answer, Trouble> {
    let status = response.status();
    let header = response.headers().get_all(WWW_AUTHENTICATE);
    let challenges: Vec<&str> = header.iter().filter_map(|value| value.to_str().ok()).collect();
    let digest = challenges.iter().find(|challenge| is_digest(challenge));
    let challenge = digest.or(challenges.first()).map(|challenge| challenge.to_string());
    let cookies = response.headers().get_all(SET_COOKIE).iter();
    let cookies = cookies.filter_map(|value| value.to_str().ok()).map(str::to_string).collect();
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let count = response.read(&mut piece).map_err(|_| cut_off(name, end))?;
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(&piece[..count]);
        if bytes.len() > LONGEST {
            let text = format!("the answer to {name} is longer than {LONGEST} bytes");
            return Err(Trouble::Passing(text));
        }
        if Instant::now() >= end {
            return Err(cut_off(name, end));
        }
    }
    Ok(Answer { status, challenge, reply: Reply { cookies, body: bytes } })
}

fn cut_off(name: &str, end: Instant) -> Trouble {
    Trouble::Passing(if Instant::now() >= end {
        format!("the answer to {name} does not end in time")
    } else {
        format!("the answer to {name} is cut off")
    })
}

/// What kept a request from an answer. The error's own text would show the URL.
fn failed(error: reqwest::Error, name: &str) -> Trouble {
    let error = error.without_url();
    let cause = innermost(&error);
    Trouble::Passing(if error.is_timeout() && error.is_connect() {
        "it does not take a connection in time".to_string()
    } else if error.is_timeout() {
        format!("{name} is not answered in time")
    } else if error.is_connect() {
        format!("it takes no connection: {cause}")
    } else {
        format!("{name} is not answered: {cause}")
    })
}

fn innermost(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn is_digest(challenge: &str) -> bool {
    challenge.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("digest"))
}

fn digest(
    challenge: &str,
    user: &str,
    password: &Secret,
    uri: &str,
    method: Method,
) -> Result<String, Trouble> {
    let method = match method {
        Method::Get => digest_auth::HttpMethod::GET,
        Method::Post => digest_auth::HttpMethod::POST,
    };
    let context = digest_auth::AuthContext::new_with_method(
        user,
        password.expose(),
        uri,
        Option::<&[u8]>::None,
        method,
    );
    let mut prompt = digest_auth::parse(challenge)
        .map_err(|_| Trouble::Lasting("its Digest challenge is not understood".to_string()))?;
    let answer = prompt.respond(&context);
    let answer = answer
        .map_err(|_| Trouble::Lasting("its Digest challenge cannot be answered".to_string()))?;
    Ok(answer.to_string())
}

/// Percent-encodes what is one segment of a path or one value of a query (RFC 3986 section 2.3).
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_encoded() {
        assert_eq!(encoded("Node A/ö"), "Node%20A%2F%C3%B6");
        assert_eq!(encoded("switch.node_a"), "switch.node_a");
    }

    #[test]
    fn a_status_that_may_pass_is_tried_again_and_a_refusal_is_not() {
        for (code, want) in [
            (200, None),
            (302, Some(Trouble::Lasting(String::new()))),
            (400, Some(Trouble::Lasting(String::new()))),
            (401, Some(Trouble::Refused(String::new()))),
            (403, Some(Trouble::Refused(String::new()))),
            (404, Some(Trouble::Lasting(String::new()))),
            (429, Some(Trouble::Passing(String::new()))),
            (503, Some(Trouble::Passing(String::new()))),
        ] {
            let trouble = judge(StatusCode::from_u16(code).unwrap(), "x").err();
            let kind = trouble.as_ref().map(std::mem::discriminant);
            assert_eq!(kind, want.as_ref().map(std::mem::discriminant), "{code}");
        }
    }

    #[test]
    fn a_digest_is_made_with_sha_256_and_shows_no_password() {
        let challenge =
            r#"Digest qop="auth", realm="shellyplusplugs-aabb", nonce="1637", algorithm=SHA-256"#;
        let password = Secret::new("hush".to_string());
        let answer = digest(challenge, "admin", &password, "/rpc", Method::Post).unwrap();
        for part in
            ["username=\"admin\"", "uri=\"/rpc\"", "qop=auth", "algorithm=SHA-256", "nc=00000001"]
        {
            assert!(answer.contains(part), "{answer}");
        }
        assert!(!answer.contains("hush"));
        assert!(digest("Digest nonsense", "admin", &password, "/", Method::Get).is_err());
    }
}
