//! httpbin: its challenges, and answers that are none.

use crate::report::{AMPLE, Report};
use crate::server::{Server, command, file, installed};

const RIGHT: &str = "username=admin\npassword=right\n";
const WRONG: &str = "username=admin\npassword=wrong-one\n";
/// An expression for all there is, so that nothing but the rules of HTTP keeps an answer from "off".
const ANYTHING: (&str, &str) = ("^never$", "(?s)^.*$");
/// Of `{"authenticated": true, …}`, which httpbin tells whom it lets in.
const LET_IN: &str = "\"authenticated\": *true";
/// For what ends only when the time is over.
const SHORT: &str = "power_timeout=2\n";

struct Httpbin {
    server: Server,
    port: u16,
}

impl Httpbin {
    fn start() -> Httpbin {
        let mut command = command(&installed("python/bin/python"));
        let server = Server::start("httpbin", command.arg(file("httpbin_server.py")));
        let port = server.line().parse().unwrap();
        Httpbin { server, port }
    }

    /// Options of a plug whose three URLs are this one.
    fn lines(&self, action: &str, path: &str, (on, off): (&str, &str), options: &str) -> String {
        let port = self.port;
        format!(
            "action={action}\ntype=http\nip=127.0.0.1\nipport={port}\npower_off_url={path}\n\
             power_on_url={path}\nstatus_url={path}\nstatus_on_regex={on}\nstatus_off_regex={off}\n\
             hold=0.05\nstonith_status_sleep=0.05\n{options}\n"
        )
    }

    /// How many requests for a path have come. Each is logged before it is answered.
    fn requests(&self, path: &str) -> usize {
        let line = format!("GET {path} ");
        self.server.log().lines().filter(|text| text.contains(&line)).count()
    }
}

#[test]
fn httpbin() {
    let mut report = Report::new("httpbin");
    let httpbin = Httpbin::start();
    digest(&mut report, &httpbin);
    basic(&mut report, &httpbin);
    answers_that_are_none(&mut report, &httpbin);
    report.close();
}

fn digest(report: &mut Report, httpbin: &Httpbin) {
    for way in ["auth/admin/right/MD5", "auth/admin/right/SHA-256", "none/admin/right/MD5"] {
        let path = format!("/digest-auth/{way}");
        let (is_on, is_off) = ((LET_IN, "^never$"), ("^never$", LET_IN));
        for (action, states, code, text) in [
            ("status", is_on, 0, "Status: ON"),
            ("status", is_off, 2, "Status: OFF"),
            ("monitor", is_on, 0, ""),
            ("off", is_off, 0, "Success: Powered OFF"),
            ("on", is_on, 0, "Success: Powered ON"),
        ] {
            let lines = httpbin.lines(action, &path, states, &format!("{AMPLE}{RIGHT}"));
            report.run(&format!("Digest {way} {action}"), &lines, code, text);
        }
        for action in ["off", "reboot", "on", "status", "monitor"] {
            // The challenge, and one answer to it.
            refused(report, httpbin, &path, action, WRONG, 2);
            refused(report, httpbin, &path, action, "", 1);
        }
    }
}

fn basic(report: &mut Report, httpbin: &Httpbin) {
    let path = "/basic-auth/admin/right";
    let lines = httpbin.lines("off", path, ("^never$", LET_IN), &format!("{AMPLE}{RIGHT}"));
    report.run("Basic off", &lines, 0, "Success: Powered OFF");
    for action in ["off", "reboot", "on", "status", "monitor"] {
        refused(report, httpbin, path, action, WRONG, 1);
    }
}

/// Who is refused does not ask again: many devices lock out who does.
fn refused(
    report: &mut Report,
    httpbin: &Httpbin,
    path: &str,
    action: &str,
    who: &str,
    requests: usize,
) {
    let password = if who.is_empty() { "no" } else { "a wrong" };
    let name = format!("{path} {action} with {password} password");
    let before = httpbin.requests(path);
    let lines = httpbin.lines(action, path, ANYTHING, &format!("{AMPLE}{who}"));
    report.run(&name, &lines, 1, "password is rejected");
    report.equal(&format!("{name}, requests"), httpbin.requests(path) - before, requests);
}

fn answers_that_are_none(report: &mut Report, httpbin: &Httpbin) {
    for (path, times, text) in [
        ("/status/302", AMPLE, "is redirected"),
        ("/redirect/2", AMPLE, "is redirected"),
        ("/redirect-to?url=/base64/b2Zm", AMPLE, "is redirected"),
        ("/status/400", AMPLE, "HTTP 400"),
        ("/status/403", AMPLE, "is forbidden"),
        ("/status/404", AMPLE, "is not there"),
        ("/status/418", AMPLE, "HTTP 418"),
        ("/status/429", SHORT, "HTTP 429"),
        ("/status/500", SHORT, "HTTP 500"),
        ("/status/503", SHORT, "HTTP 503"),
        ("/image/png", SHORT, "is not text"),
        ("/gzip", SHORT, "is not text"),
        ("/stream-bytes/100000?seed=1", SHORT, "longer than"),
        ("/delay/10", SHORT, "time"),
        ("/drip?duration=60&numbytes=600&delay=0", SHORT, "time"),
    ] {
        for action in ["off", "status"] {
            let lines = httpbin.lines(action, path, ANYTHING, times);
            report.run(&format!("{path} {action}"), &lines, 1, text);
        }
    }
    let states = ("on", "off");
    // "off", "on", "on or off", "neither" in Base64.
    for (path, code, text) in [
        ("/base64/b2Zm", 2, "Status: OFF"),
        ("/base64/b24=", 0, "Status: ON"),
        ("/base64/b24gb3Igb2Zm", 1, "both status_on_regex and status_off_regex match"),
        ("/base64/bmVpdGhlcg==", 1, "neither status_on_regex nor status_off_regex matches"),
    ] {
        let times = if code == 1 { SHORT } else { AMPLE };
        let lines = httpbin.lines("status", path, states, times);
        report.run(&format!("{path} status"), &lines, code, text);
    }
}
