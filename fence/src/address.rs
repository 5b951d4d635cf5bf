//! Addresses: a name server that does not answer must not hold up a fence.

use crate::plug::Trouble;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Which addresses of a name are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// All.
    Any,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

/// Times of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// For a connection.
    pub(crate) connect: Duration,
    /// For a request with its answer.
    pub(crate) request: Duration,
}

impl Limits {
    /// The end of a request that begins now.
    ///
    /// # Errors
    /// If the time is over.
    pub(crate) fn end(&self, until: Instant) -> Result<Instant, Trouble> {
        let now = Instant::now();
        if now >= until {
            return Err(Trouble::Passing("no time is left".to_string()));
        }
        Ok(until.min(now + self.request))
    }
}

/// An address, or the name of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Address or name; IPv6 without brackets.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
    /// Which addresses count.
    pub(crate) network: Network,
}

impl Place {
    /// As messages and URLs show it, without the port.
    pub(crate) fn shown(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    /// The socket addresses behind a name.
    ///
    /// # Errors
    /// If there are none, or nobody tells in time.
    pub(crate) fn resolve(&self, at_most: Duration) -> Result<Vec<SocketAddr>, Trouble> {
        let all = match self.host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, self.port)],
            Err(_) => self.ask(at_most)?,
        };
        let wanted = |address: &SocketAddr| match self.network {
            Network::Any => true,
            Network::V4 => address.is_ipv4(),
            Network::V6 => address.is_ipv6(),
        };
        let addresses: Vec<SocketAddr> = all.into_iter().filter(wanted).collect();
        if addresses.is_empty() {
            return Err(Trouble::Lasting(format!("{} has no address of that kind", self.host)));
        }
        Ok(addresses)
    }

    /// The resolver knows no deadline, so a thread asks it, which is left behind if need be.
    fn ask(&self, at_most: Duration) -> Result<Vec<SocketAddr>, Trouble> {
        let (sender, receiver) = mpsc::channel();
        let (host, port) = (self.host.clone(), self.port);
        std::thread::spawn(move || {
            let found = (host.as_str(), port).to_socket_addrs().map(|found| found.collect());
            // Nobody listens any more when the time is over.
            let _ = sender.send(found);
        });
        match receiver.recv_timeout(at_most) {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(_)) => Err(Trouble::Passing(format!("the name {:?} has no address", self.host))),
            Err(_) => {
                let text = format!("no name server tells the address of {:?}", self.host);
                Err(Trouble::Passing(text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_as_it_is_and_filtered_by_kind() {
        let place = |host: &str, network| Place { host: host.to_string(), port: 80, network };
        let time = Duration::from_secs(5);
        let v4 = place("192.0.2.1", Network::Any).resolve(time).unwrap();
        assert_eq!(v4, ["192.0.2.1:80".parse().unwrap()]);
        assert!(place("192.0.2.1", Network::V6).resolve(time).is_err());
        assert!(place("2001:db8::1", Network::V6).resolve(time).is_ok());
        assert_eq!(place("2001:db8::1", Network::Any).shown(), "[2001:db8::1]");
    }
}
